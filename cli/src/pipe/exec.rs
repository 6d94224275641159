//! The command of `--exec`: one process per delivery.

use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};

use eventbroker::Outcome;

/// The exit code by which a command requests a retry (`EX_TEMPFAIL` of sysexits.h).
const TRY_AGAIN: i32 = 75;

/// Runs the command with the event on its standard input. Blocks until the command ends.
pub(super) fn run(command: &str, json: &[u8]) -> Outcome {
    match try_run(command, json) {
        Ok(status) => outcome(status),
        // Out of processes or memory: a later attempt may succeed.
        Err(error) => Outcome::Retry(format!("cannot run the command: {error}")),
    }
}

fn try_run(command: &str, json: &[u8]) -> io::Result<ExitStatus> {
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::piped())
        // Standard output carries only events.
        .stdout(Stdio::from(io::stderr()))
        // Ctrl-C at the terminal must reach only `pipe`; the command may finish.
        .process_group(0)
        .spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // The command may exit without reading its input: only the exit code counts.
        let _ = stdin.write_all(json).and_then(|()| stdin.write_all(b"\n"));
    }
    child.wait()
}

fn outcome(status: ExitStatus) -> Outcome {
    match (status.code(), status.signal()) {
        (Some(0), _) => Outcome::Done,
        (Some(TRY_AGAIN), _) => Outcome::Retry(format!("the command requested a retry (exit code {TRY_AGAIN})")),
        (Some(code), _) => Outcome::Permanent(format!("the command failed with exit code {code}")),
        (None, signal) => Outcome::Permanent(format!("the command was killed by signal {}", signal.unwrap_or(0))),
    }
}
