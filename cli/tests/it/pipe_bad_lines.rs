//! An invalid line is reported with its number and the faulty field. `pipe` processes the other lines and exits with 6.

use crate::support::{event, run};
use serde_json::{Value, json};

fn input() -> String {
    let good = |id| event(id, "a.b.c", &json!(null));
    [
        good("1"),
        "nonsense\n".to_owned(),
        "\n".to_owned(),
        event("2", "a..c", &json!(null)),
        json!({ "specversion": "1.0", "id": "3", "type": "a", "source": "urn:x", "time": "noon" }).to_string() + "\n",
        event("1", "a.b.c", &json!("something else")),
        event("4", "a.b.c", &"x".repeat(1 << 20).into()),
        " ".repeat(5 << 20) + "\n",
        // The last line needs no line break.
        good("5").trim_end().to_owned(),
    ]
    .concat()
}

#[test]
fn the_rest_goes_on() {
    let out = run(&["pipe", "--pattern", "*"], &input());
    let ids: Vec<_> = out.lines().iter().map(|line| line["id"].clone()).collect();
    assert_eq!((out.code, ids), (Some(6), vec![json!("1"), json!("5")]));
    let reports: Vec<_> = out.stderr.lines().filter(|line| line.starts_with("eventbroker: line ")).collect();
    let expected = [
        "line 2: event: is not JSON",
        "line 4: type: segment 2 is empty",
        "line 5: time: is not an RFC 3339 time",
        "line 6: id: is the id of an earlier event",
        "line 7: payload: is 1048578 bytes long, at most 1048576",
        "line 8: event: is longer than 4194304 bytes",
    ];
    assert_eq!(reports.len(), expected.len(), "{}", out.stderr);
    for (report, expected) in reports.iter().zip(expected) {
        assert!(report.starts_with(&format!("eventbroker: {expected}")), "{report}");
    }
    assert!(out.stderr.contains("6 bad lines"), "{}", out.stderr);
}

#[test]
fn programs_get_reports_as_json() {
    let out = run(&["pipe", "--pattern", "*", "--json"], &input());
    let reports: Vec<Value> = out.stderr.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(reports[1]["line"], 4);
    assert_eq!(reports[1]["field"], "type");
    assert_eq!(reports[1]["problem"], "segment 2 is empty");
    assert_eq!(reports.last().expect("a report")["bad_lines"], 6);
}

#[test]
fn bytes_that_are_no_text_are_a_bad_line() {
    use std::io::Write;
    let mut child = crate::support::command(&["pipe", "--pattern", "*"]).spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(b"\xff\xfe\n").expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(6));
    assert!(String::from_utf8_lossy(&output.stderr).contains("line 1: event: is not JSON"));
}
