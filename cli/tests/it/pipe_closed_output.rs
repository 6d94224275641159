//! `pipe` exits with 0 and no message when its standard output is closed.

use std::io::{BufRead, BufReader, Read, Write};
use std::thread;

use crate::support::{command, event};
use serde_json::json;

#[test]
fn it_ends_quietly() {
    let mut child = command(&["pipe", "--pattern", "*"]).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    // The input has no end: only the closed output ends `pipe`.
    let feeder = thread::spawn(move || {
        for number in 0_u64.. {
            if stdin.write_all(event(&number.to_string(), "a.b.c", &json!(number)).as_bytes()).is_err() {
                return number;
            }
        }
        0
    });
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    assert!(line.contains("\"id\":\"0\""), "{line}");
    let status = child.wait().expect("it ends");
    let mut stderr = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("text");
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));
    assert!(feeder.join().expect("the feeder ends") > 0);
}
