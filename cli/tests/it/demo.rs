//! The figures of `demo` reconcile however it ends, and a discrepancy is reported.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use eventbroker_conformance::{nats, postgres, redis};
use rusqlite::Connection;
use serde_json::Value;

/// The limit of every wait, generous for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A run of `demo` in its own temporary folder.
struct Demo {
    /// `None` after the process has been waited for.
    child: Option<Child>,
    folder: PathBuf,
}

impl Demo {
    fn start(test: &str, arguments: &[&str]) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("demo-{test}-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder for the test");
        let child = Command::new(env!("CARGO_BIN_EXE_eventbroker"))
            .arg("demo")
            .args(arguments)
            .env("TMPDIR", &folder)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the command runs");
        Self { child: Some(child), folder }
    }

    /// Opens the database file `name` as soon as `table` has a row.
    fn database(&self, name: &str, table: &str) -> Connection {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline, "there is nothing in {table} of {name}");
            // Polls: the demo does not signal a new row.
            sleep(Duration::from_millis(10));
            let Some(Ok(made)) = fs::read_dir(&self.folder).expect("the test's folder").next() else { continue };
            let path = made.path().join(name);
            if !path.exists() {
                continue;
            }
            let connection = Connection::open(path).expect("it is a database");
            connection.busy_timeout(PATIENCE).expect("a timeout");
            let rows = connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, u32>(0));
            if rows.is_ok_and(|rows| rows > 0) {
                return connection;
            }
        }
    }

    fn signal(&self, signal: &str) {
        let id = self.child.as_ref().expect("it runs").id();
        let sent = Command::new("sh").arg("-c").arg(format!("kill -{signal} {id}")).status().expect("a shell");
        assert!(sent.success());
    }

    /// Waits for the process to end, and checks that it left no file.
    fn end(mut self) -> Output {
        let output = self.child.take().expect("it runs").wait_with_output().expect("it ends");
        let left = fs::read_dir(&self.folder).expect("the test's folder").count();
        assert_eq!(left, 0, "it left something in its temporary folder");
        output
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Parses the report: standard output holds only this, and standard error is empty.
fn report(output: &Output) -> Value {
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    serde_json::from_slice(&output.stdout).expect("one JSON object")
}

fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("no number at {path} in {report}"))
}

/// The names of the failed checks.
fn failing(report: &Value) -> Vec<&str> {
    let checks = report["checks"].as_array().expect("a list of checks");
    assert!(checks.len() > 10, "{report}");
    checks.iter().filter(|check| check["ok"] != true).map(|check| check["name"].as_str().expect("a name")).collect()
}

fn assert_adds_up(report: &Value) {
    assert_eq!(failing(report), [""; 0], "{report}");
    assert_eq!(report["reconciled"], true);
    let committed: u64 = report["changes"].as_object().expect("counts").values().filter_map(Value::as_u64).sum();
    let (accepted, dead) = (number(report, "/events/accepted"), number(report, "/events/dead_letters"));
    assert!(committed > 0, "{report}");
    assert_eq!(accepted, committed + dead);
    assert_eq!(accepted, number(report, "/events/completed") + number(report, "/events/failed"));
    assert_eq!(number(report, "/events/refused"), 0);
    assert!(number(report, "/events/stored") <= number(report, "/events/max_stored"), "{report}");
    let audit = report["subscriptions"].as_array().expect("a list").iter().find(|it| it["name"] == "audit");
    assert_eq!(number(audit.expect("the audit log"), "/done"), committed);
}

#[test]
fn two_seconds_add_up() {
    let output = Demo::start("short", &["--seconds", "2", "--json"]).end();
    let report = report(&output);
    assert_adds_up(&report);
    assert_eq!((output.status.code(), &report["interrupted"]), (Some(0), &Value::Bool(false)));
    assert!(report["seconds"].as_f64().is_some_and(|seconds| seconds >= 2.0), "{report}");
    for path in ["/transactions/committed", "/transactions/rolled_back", "/transactions/savepoints_rolled_back"] {
        assert!(number(&report, path) > 0, "{path} in {report}");
    }
    assert!(number(&report, "/events/retries") > 0, "the mailer never failed: {report}");
}

#[test]
fn two_seconds_on_a_file_add_up_too() {
    adds_up_on("sqlite", &[]);
}

#[test]
fn two_seconds_on_a_server_add_up_too() {
    let server = postgres::Server::start();
    adds_up_on("postgres", &["--url", &server.database()]);
}

#[test]
fn two_seconds_on_a_stream_add_up_too() {
    let server = redis::Server::start();
    adds_up_on("redis", &["--url", &server.url()]);
}

#[test]
fn two_seconds_on_a_jetstream_add_up_too() {
    let server = nats::Server::start();
    adds_up_on("nats", &["--url", &server.url()]);
}

/// Checks that the counts agree with the events in the back end.
fn adds_up_on(provider: &str, arguments: &[&str]) {
    let arguments = [&["--seconds", "2", "--provider", provider, "--json"], arguments].concat();
    let output = Demo::start(provider, &arguments).end();
    let report = report(&output);
    assert_eq!(failing(&report), [""; 0], "{report}");
    assert_eq!((output.status.code(), &report["provider"]), (Some(0), &Value::from(provider)));
    let committed: u64 = report["changes"].as_object().expect("counts").values().filter_map(Value::as_u64).sum();
    assert!(committed > 0, "{report}");
    for path in ["/events/accepted", "/events/stored"] {
        assert_eq!(number(&report, path), committed, "{path} in {report}");
    }
    assert_eq!(number(&report, "/events/failed"), number(&report, "/events/dead_letters"));
}

#[test]
fn a_signal_ends_it_early_and_it_still_adds_up() {
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let demo = Demo::start(signal, &["--seconds", "3600", "--threads", "2", "--json"]);
        demo.database("audit.db", "audit");
        demo.signal(signal);
        let output = demo.end();
        let report = report(&output);
        assert_adds_up(&report);
        assert_eq!((output.status.code(), &report["interrupted"]), (Some(code), &Value::Bool(true)));
    }
}

#[test]
fn what_does_not_add_up_is_named_and_exits_1() {
    let demo = Demo::start("wrong", &["--seconds", "3600", "--json"]);
    let audit = demo.database("audit.db", "audit");
    let deleted = audit.execute("DELETE FROM audit WHERE event = (SELECT min(event) FROM audit)", []);
    assert_eq!(deleted, Ok(1));
    drop(audit);
    demo.signal("INT");
    let output = demo.end();
    let report = report(&output);
    assert_eq!(failing(&report), ["audit_rows", "audit_types"]);
    assert_eq!((output.status.code(), &report["reconciled"]), (Some(1), &Value::Bool(false)));
}

#[test]
fn people_get_a_table() {
    let output = Demo::start("table", &["--seconds", "1", "--threads", "1"]).end();
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.starts_with("A SQLite shop with 1 thread, 1."), "{text}");
    assert!(text.ends_with("\nEverything adds up.\n") && !text.contains('✗'), "{text}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "", "no line is animated off a terminal");
}

#[test]
fn options_have_bounds() {
    for arguments in [["--threads", "0"], ["--threads", "65"], ["--seconds", "0"], ["--seconds", "86401"]] {
        let output = Demo::start(&arguments.join(""), &arguments).end();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(arguments[0]) && said.contains(".."), "{said}");
    }
}
