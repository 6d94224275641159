//! How the command ends: the exit codes, and the failure that carries one. What is printed before is told elsewhere.

use std::fmt;
use std::process::ExitCode;

/// The exit codes, as `--help` lists them.
pub(crate) const HELP: &str = "\
Exit codes:
  0    ok (also when the reader of the output has gone)
  1    failed
  2    wrong usage
  3    not found
  4    unreachable: the back end cannot be reached, opened or used now
  5    timed out: accepted events were not handled in time
  6    partly failed: the rest was done
  130  ended by SIGINT, in good order
  143  ended by SIGTERM, in good order";

/// How a command that ran ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// All was done, or nobody wants the output any more.
    Ok,
    /// It failed.
    Failed,
    /// The arguments are wrong.
    Usage,
    /// What was looked for is not there.
    NotFound,
    /// The back end can't be reached, opened or used now.
    Unreachable,
    /// Accepted events were not handled in time.
    TimedOut,
    /// Some of it failed, the rest was done.
    PartlyFailed,
    /// A signal asked for the end, and it ended in good order.
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

/// Why a command could not do its work. `?` makes one of any error, with exit code 1.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What failed, where, and how to mend it.
    pub(crate) message: String,
}

impl Failure {
    /// A failure with exit code 1.
    pub(crate) fn new(message: impl fmt::Display) -> Self {
        Self { exit: Exit::Failed, message: message.to_string() }
    }

    /// What was looked for is not there: exit code 3.
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

/// (For that reason it does not implement `Error` itself.)
impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}
