//! The exit codes, and the failure that carries one.

use std::fmt;
use std::process::ExitCode;

/// The exit codes, as `--help` lists them.
pub(crate) const HELP: &str = "\
Exit codes:
  0    ok (also when standard output was closed by its reader)
  1    failed
  2    wrong usage
  3    not found
  4    unreachable: the back end cannot be reached, opened or used now
  5    timed out: accepted events were not handled in time
  6    partly failed: the rest was done
  130  stopped cleanly by SIGINT
  143  stopped cleanly by SIGTERM";

/// The outcome of a command; converts to the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Everything was done, or the reader of the output closed the pipe.
    Ok,
    /// The command failed.
    Failed,
    /// The arguments are wrong.
    Usage,
    /// The object asked for does not exist.
    NotFound,
    /// The back end can't be reached, opened or used now.
    Unreachable,
    /// Accepted events were not handled before the deadline.
    TimedOut,
    /// Some items failed, the rest was done.
    PartlyFailed,
    /// A signal stopped the command, and it stopped cleanly.
    Signal(i32),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Ok => Self::SUCCESS,
            Exit::Failed => Self::from(1),
            Exit::Usage => Self::from(2),
            Exit::NotFound => Self::from(3),
            Exit::Unreachable => Self::from(4),
            Exit::TimedOut => Self::from(5),
            Exit::PartlyFailed => Self::from(6),
            Exit::Signal(signal) => Self::from(u8::try_from(128 + signal).unwrap_or(1)),
        }
    }
}

/// The error of a command. `?` converts any error, with exit code 1.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// The message: the problem, its place, and the fix.
    pub(crate) message: String,
}

impl Failure {
    /// A failure with exit code 1.
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Failed, message: message.to_string() }
    }

    /// The object asked for does not exist: exit code 3.
    pub(crate) fn not_found(message: impl fmt::Display) -> Self {
        Self { exit: Exit::NotFound, message: message.to_string() }
    }

    /// The back end can't be used now: exit code 4.
    pub(crate) fn unreachable(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Unreachable, message: message.to_string() }
    }

    /// Wrong arguments: exit code 2.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Usage, message: message.to_string() }
    }
}

/// `Failure` does not implement `Error` itself: this conversion would overlap with the one of std from `T` to `T`.
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}
