//! SIGTERM and SIGINT, sent to a real process: this test runs itself as that process.
#![cfg(all(unix, feature = "signals"))]

mod support;

use std::io::{BufRead, BufReader, Lines};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use eventbroker::error::PublishError;
use eventbroker::{Broker, Overflow, SubscribeOptions, run_until_signal};
use support::{Gate, PATIENCE, event, in_time, wait_until};

/// Tells this test's process what it is to be.
const PART: &str = "EVENTBROKER_SIGNALS_PART";
const PUBLISHERS: usize = 64;

/// The other process. It does nothing when the tests are run as tests.
#[test]
fn the_other_process() {
    match std::env::var(PART).as_deref() {
        Ok("drains") => blocked_publishers(),
        Ok("stuck") => stuck_handler(),
        Ok("plain") => plain(),
        _ => {}
    }
}

/// One event runs, one is queued, and 64 publishers wait for room.
fn blocked_publishers() {
    let broker = Broker::builder().worker_count(1).start().expect("it starts");
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    let handled = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&handled);
    let options = SubscribeOptions::new("*").queue_capacity(1).overflow(Overflow::Block(Duration::from_secs(600)));
    broker
        .subscribe_with(options, move |_| {
            handler_gate.pass();
            count.fetch_add(1, Ordering::SeqCst);
        })
        .expect("subscribed");
    broker.publish(event("running")).expect("accepted");
    gate.wait_for_arrival();
    broker.publish(event("queued")).expect("accepted");
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|_| {
            let broker = broker.clone();
            let publish = move || matches!(broker.publish(event("blocked")), Err(PublishError::NotRunning { .. }));
            std::thread::Builder::new().name("publisher".to_owned()).spawn(publish).expect("a thread")
        })
        .collect();
    wait_until("all publishers are blocked", || asleep("publisher") == PUBLISHERS);
    // The handler goes on as soon as every publisher has its event back.
    let returned = std::thread::spawn(move || {
        let returned = publishers.into_iter().map(|it| it.join().expect("no panic")).filter(|it| *it).count();
        gate.open();
        returned
    });
    say_ready_once_signals_are_caught();
    let report = run_until_signal(&broker, Duration::from_secs(60)).expect("it listens");
    let returned = returned.join().expect("no panic");
    let (handled, drained) = (handled.load(Ordering::SeqCst), report.drained);
    println!("returned {returned} handled {handled} drained {drained} clean {}", report.is_clean());
}

/// A handler that never ends, and one event behind it.
fn stuck_handler() {
    let broker = Broker::builder().worker_count(1).start().expect("it starts");
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    broker.subscribe("*", move |_| handler_gate.pass()).expect("subscribed");
    let open = [event("running"), event("queued")];
    broker.publish(open[0].clone()).expect("accepted");
    gate.wait_for_arrival();
    broker.publish(open[1].clone()).expect("accepted");
    say_ready_once_signals_are_caught();
    let watched = broker.clone();
    std::thread::spawn(move || {
        wait_until("the first signal has come", || !watched.stats().is_running);
        println!("draining");
    });
    let report = run_until_signal(&broker, Duration::from_secs(600)).expect("it listens");
    let exact = report.abandoned.len() == 2 && open.iter().all(|it| report.abandoned.contains(it.id()));
    println!("drained {} abandoned exactly the open ones {exact} threads left {}", report.drained, report.threads_left);
    // From here on a signal ends the process, as it would have without the library.
    std::thread::sleep(6 * PATIENCE);
}

/// A broker, and nobody who asked for signal handlers.
fn plain() {
    let _broker = Broker::builder().start().expect("it starts");
    println!("\nready");
    std::thread::sleep(6 * PATIENCE);
}

/// A signal that comes before anybody listens ends the process.
fn say_ready_once_signals_are_caught() {
    std::thread::spawn(|| {
        wait_until("SIGINT and SIGTERM are caught", || {
            let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells");
            let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).expect("a mask");
            let mask = u64::from_str_radix(caught.trim(), 16).expect("hexadecimal");
            [2, 15].iter().all(|signal| mask & 1 << (signal - 1) != 0)
        });
        println!("\nready");
    });
}

/// How many threads of that name sleep.
fn asleep(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux tells").flatten();
    let stat = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
    tasks.map(stat).filter(|it| it.contains(&format!("({name}) S "))).count()
}

/// A process that plays a part, and what it says.
struct Process {
    child: Child,
    said: Lines<BufReader<ChildStdout>>,
}

impl Process {
    fn play(part: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "the_other_process", "--nocapture", "--test-threads=1"])
            .env(PART, part)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let said = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut process = Self { child, said };
        process.hear("ready");
        process
    }

    /// The next line that begins so; the test harness says things of its own.
    fn hear(&mut self, begin: &str) -> String {
        let line = self.said.by_ref().map(|it| it.expect("text")).find(|it| it.starts_with(begin));
        line.unwrap_or_else(|| panic!("the process ended and did not say {begin}"))
    }

    fn send(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    fn end(mut self) -> ExitStatus {
        self.child.wait().expect("it ends")
    }
}

/// Nothing stays behind when a test fails.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_signal_drains_while_64_publishers_are_blocked_and_the_report_is_exact() {
    for signal in ["TERM", "INT"] {
        let mut process = Process::play("drains");
        process.send(signal);
        let said = process.hear("returned");
        assert_eq!(said, "returned 64 handled 2 drained 2 clean true", "{signal}");
        assert!(process.end().success());
    }
}

#[test]
fn the_second_signal_forces_the_end_and_the_third_is_the_usual_one() {
    let mut process = Process::play("stuck");
    process.send("TERM");
    process.hear("draining");
    process.send("INT");
    let said = process.hear("drained");
    assert_eq!(said, "drained 0 abandoned exactly the open ones true threads left 1");
    process.send("TERM");
    assert_eq!(in_time("the end of the process", move || process.end()).signal(), Some(15));
}

#[test]
fn the_library_installs_no_signal_handler_by_itself() {
    let process = Process::play("plain");
    process.send("TERM");
    assert_eq!(in_time("the end of the process", move || process.end()).signal(), Some(15));
}

#[test]
fn a_shutdown_callback_stops_as_often_as_it_is_called() {
    let broker = Broker::builder().start().expect("it starts");
    let callback = broker.shutdown_callback(PATIENCE);
    broker.publish(event("a")).expect("accepted");
    drop(broker);
    let report = callback();
    assert!(report.is_clean());
    assert_eq!(callback(), report);
}
