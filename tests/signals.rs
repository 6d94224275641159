//! `run_until_signal` under SIGTERM and SIGINT. The test binary starts itself as the process that gets the signals.
#![cfg(all(unix, feature = "signals"))]

#[path = "it/support.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use eventbroker::error::PublishError;
use eventbroker::{Broker, Overflow, SubscribeOptions, run_until_signal};
use support::{Gate, PATIENCE, event, in_time, receive, wait_until};

/// The environment variable that names the part that a started process plays.
const PART: &str = "EVENTBROKER_SIGNALS_PART";
const PUBLISHERS: usize = 64;

/// The entry of the started process. It does nothing in a normal test run.
#[test]
fn the_other_process() {
    match std::env::var(PART).as_deref() {
        Ok("drains") => blocked_publishers(),
        Ok("stuck") => stuck_handler(),
        Ok("twice") => twice(),
        Ok("both") => both(),
        Ok("plain") => plain(),
        _ => {}
    }
}

/// One event runs, one is queued, and 64 publishers wait for room.
fn blocked_publishers() {
    let broker = Broker::builder().worker_count(1).start().expect("a running broker");
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
    // The handler returns as soon as every publisher has its event back.
    let returned = std::thread::spawn(move || {
        let returned = publishers.into_iter().map(|it| it.join().expect("no panic")).filter(|it| *it).count();
        gate.open();
        returned
    });
    print_ready_when_waiting();
    let report = run_until_signal(&broker, Duration::from_secs(60)).expect("signal handlers");
    let returned = returned.join().expect("no panic");
    let (handled, drained) = (handled.load(Ordering::SeqCst), report.drained);
    println!("returned {returned} handled {handled} drained {drained} clean {}", report.is_clean());
}

/// A handler that never returns, and one queued event behind it.
fn stuck_handler() {
    let broker = Broker::builder().worker_count(1).start().expect("a running broker");
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    broker.subscribe("*", move |_| handler_gate.pass()).expect("subscribed");
    let open = [event("running"), event("queued")];
    broker.publish(open[0].clone()).expect("accepted");
    gate.wait_for_arrival();
    broker.publish(open[1].clone()).expect("accepted");
    print_ready_when_waiting();
    let watched = broker.clone();
    std::thread::spawn(move || {
        wait_until("the first signal has stopped the broker", || !watched.stats().is_running);
        println!("draining");
    });
    let report = run_until_signal(&broker, Duration::from_secs(600)).expect("signal handlers");
    let exact = report.abandoned.len() == 2 && open.iter().all(|it| report.abandoned.contains(it.id()));
    println!("drained {} abandoned exactly the open ones {exact} threads left {}", report.drained, report.threads_left);
    // From now on a signal has its default action: it terminates the process.
    std::thread::sleep(6 * PATIENCE);
}

/// Two brokers, one after the other, each until a signal.
fn twice() {
    for name in ["first", "second"] {
        let broker = Broker::builder().start().expect("a running broker");
        let waiting = std::thread::spawn(move || run_until_signal(&broker, PATIENCE).expect("signal handlers"));
        wait_for_listeners(1);
        println!("\n{name} waits");
        println!("{name} clean {}", waiting.join().expect("no panic").is_clean());
    }
}

/// Two brokers at once: one drains immediately, the other has a handler that never returns.
fn both() {
    let quick = Broker::builder().start().expect("a running broker");
    let slow = Broker::builder().worker_count(1).start().expect("a running broker");
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    slow.subscribe("*", move |_| handler_gate.pass()).expect("subscribed");
    slow.publish(event("running")).expect("accepted");
    gate.wait_for_arrival();
    let patient = Duration::from_secs(600);
    let quick = std::thread::spawn(move || run_until_signal(&quick, patient).expect("signal handlers"));
    let watched = slow.clone();
    let slow = std::thread::spawn(move || run_until_signal(&slow, patient).expect("signal handlers"));
    wait_for_listeners(2);
    println!("\nready");
    println!("quick clean {}", quick.join().expect("no panic").is_clean());
    wait_until("the first signal has stopped the slow broker too", || !watched.stats().is_running);
    println!("slow drains");
    println!("slow abandoned {}", slow.join().expect("no panic").abandoned.len());
}

/// A broker without a call of `run_until_signal`.
fn plain() {
    let _broker = Broker::builder().start().expect("a running broker");
    println!("\nready");
    std::thread::sleep(6 * PATIENCE);
}

/// Prints "ready" once the signal handlers are installed; a signal before that terminates the process.
fn print_ready_when_waiting() {
    std::thread::spawn(|| {
        wait_for_listeners(1);
        println!("\nready");
    });
}

fn wait_for_listeners(count: usize) {
    // Linux truncates thread names to 15 bytes.
    wait_until("a thread waits for signals", || asleep("eventbroker:sig") == count);
}

/// How many threads of this name are asleep.
fn asleep(name: &str) -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a Linux system").flatten();
    let stat = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
    tasks.map(stat).filter(|it| it.contains(&format!("({name}) S "))).count()
}

/// A started process, and the lines that it prints.
struct Process {
    child: Child,
    said: Receiver<String>,
}

impl Process {
    fn play(part: &str) -> Self {
        let process = Self::begin(part);
        process.hear("ready");
        process
    }

    fn begin(part: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "the_other_process", "--nocapture", "--test-threads=1"])
            .env(PART, part)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let (sender, said) = channel();
        // Reads to the last line: the process would fail if its pipe were closed.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        Self { child, said }
    }

    /// The next line with this beginning; the test harness prints lines of its own.
    fn hear(&self, begin: &str) -> String {
        loop {
            let line = receive(&self.said, begin);
            if line.starts_with(begin) {
                return line;
            }
        }
    }

    fn send(&self, signal: &str) {
        let sent = Command::new("kill").args(["-s", signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill runs").success());
    }

    fn end(mut self) -> ExitStatus {
        self.child.wait().expect("the process ends")
    }
}

/// Kills the process when a test fails.
impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_signal_drains_while_64_publishers_are_blocked_and_the_report_is_exact() {
    for signal in ["TERM", "INT"] {
        let process = Process::play("drains");
        process.send(signal);
        let said = process.hear("returned");
        assert_eq!(said, "returned 64 handled 2 drained 2 clean true", "{signal}");
        assert!(process.end().success());
    }
}

#[test]
fn the_second_signal_ends_the_drain_and_the_third_terminates_the_process() {
    let process = Process::play("stuck");
    process.send("TERM");
    process.hear("draining");
    process.send("INT");
    let said = process.hear("drained");
    assert_eq!(said, "drained 0 abandoned exactly the open ones true threads left 1");
    process.send("TERM");
    assert_eq!(in_time("the end of the process", move || process.end()).signal(), Some(15));
}

#[test]
fn a_second_wait_in_the_same_process_drains_like_the_first() {
    let process = Process::begin("twice");
    for name in ["first", "second"] {
        process.hear(&format!("{name} waits"));
        process.send("TERM");
        assert_eq!(process.hear(&format!("{name} clean")), format!("{name} clean true"));
    }
    assert!(process.end().success());
}

#[test]
fn a_signal_stops_all_waiting_brokers_and_the_second_those_that_still_drain() {
    let process = Process::play("both");
    process.send("TERM");
    assert_eq!(process.hear("quick"), "quick clean true");
    process.hear("slow drains");
    process.send("TERM");
    assert_eq!(process.hear("slow abandoned"), "slow abandoned 1");
    assert!(process.end().success());
}

#[test]
fn without_a_wait_the_library_installs_no_signal_handler() {
    let process = Process::play("plain");
    process.send("TERM");
    assert_eq!(in_time("the end of the process", move || process.end()).signal(), Some(15));
}

#[test]
fn a_shutdown_callback_can_be_called_again() {
    let broker = Broker::builder().start().expect("a running broker");
    let callback = broker.shutdown_callback(PATIENCE);
    broker.publish(event("a")).expect("accepted");
    drop(broker);
    let report = callback();
    assert!(report.is_clean());
    assert_eq!(callback(), report);
}
