//! SIGINT and SIGTERM drain `pipe`: it prints the completed events and exits with 130 or 143.

use std::io::{BufRead, BufReader, Read, Write};

use crate::support::{command, event, signal};
use serde_json::{Value, json};

fn interrupted(name: &str, code: i32) {
    let mut child = command(&["pipe", "--pattern", "*", "--json"]).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    for number in 0..100 {
        stdin.write_all(event(&number.to_string(), "a.b.c", &json!(number)).as_bytes()).expect("it reads");
    }
    // `pipe` prints the first line while its input is still open.
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    let mut lines = String::new();
    stdout.read_line(&mut lines).expect("a line");
    signal(&child, name);
    stdout.read_to_string(&mut lines).expect("the rest");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(code));
    let report: Value = serde_json::from_slice(&output.stderr).expect("one JSON object");
    assert_eq!(report["done"], lines.lines().count());
    assert_eq!(report["accepted"], report["done"]);
    assert_eq!(report["signal"], code - 128);
}

#[test]
fn sigint() {
    interrupted("INT", 130);
}

#[test]
fn sigterm() {
    interrupted("TERM", 143);
}

#[test]
fn commands_that_run_may_end_their_work() {
    // The command prints a line when it runs, and waits for a line that the test writes after the signal.
    let fifo = std::env::temp_dir().join(format!("eventbroker-fifo-{}", std::process::id()));
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo runs");
    assert!(made.success());
    let exec = format!("echo running; read -r line < '{}'", fifo.display());
    let mut child = command(&["pipe", "--pattern", "*", "--exec", &exec]).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(event("1", "a.b.c", &json!(1)).as_bytes()).expect("it reads");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut told = String::new();
    stderr.read_line(&mut told).expect("a line");
    assert_eq!(told, "running\n");
    signal(&child, "INT");
    std::fs::write(&fifo, "go\n").expect("the command reads it");
    let mut out = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
    assert_eq!((child.wait().expect("it ends").code(), out.lines().count()), (Some(130), 1));
    std::fs::remove_file(&fifo).expect("it was made");
}

#[test]
fn the_second_signal_ends_it_at_once() {
    let mut child = command(&["pipe", "--pattern", "*", "--exec", "echo running; sleep 4"]).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(event("1", "a.b.c", &json!(1)).as_bytes()).expect("it reads");
    let mut told = String::new();
    BufReader::new(child.stderr.take().expect("piped")).read_line(&mut told).expect("a line");
    let since = std::time::Instant::now();
    // Pending signals of one kind merge, so the test sends the signal until the command ends.
    let status = loop {
        signal(&child, "TERM");
        if let Some(status) = child.try_wait().expect("it can be asked") {
            break status;
        }
    };
    assert_eq!(status.code(), Some(143));
    assert!(since.elapsed().as_secs() < 3, "it waited for the command");
}
