//! The command of `--exec`: one process per delivery.

use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};

use eventbroker::Outcome;

/// By its exit code a command asks to be called again later (`EX_TEMPFAIL` of sysexits.h).
const TRY_AGAIN: i32 = 75;

/// Runs the command with the event on its standard input, and waits for it.
pub(super) fn run(command: &str, json: &[u8]) -> Outcome {
    match try_run(command, json) {
        Ok(status) => outcome(status),
        // No process, no memory: a later attempt may fare better.
        Err(error) => Outcome::Retry(format!("cannot run the command: {error}")),
    }
}

fn try_run(command: &str, json: &[u8]) -> io::Result<ExitStatus> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        // Standard output is for events.
        .stdout(Stdio::from(io::stderr()))
        // A Ctrl-C at the terminal is for us; the command may end its work.
        .process_group(0)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A command need not read its input: its exit code alone counts.
        let _ = stdin.write_all(json).and_then(|()| stdin.write_all(b"\n"));
    }
    child.wait()
}

fn outcome(status: ExitStatus) -> Outcome {
    match (status.code(), status.signal()) {
        (Some(0), _) => Outcome::Done,
        (Some(TRY_AGAIN), _) => Outcome::Retry(format!("the command asked to be tried again (exit code {TRY_AGAIN})")),
        (Some(code), _) => Outcome::Permanent(format!("the command failed with exit code {code}")),
        (None, signal) => Outcome::Permanent(format!("the command was ended by signal {}", signal.unwrap_or(0))),
    }
}
