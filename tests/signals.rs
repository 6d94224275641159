//! SIGTERM and SIGINT, sent to a real process: this test runs itself as that process.
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

/// Tells this test's process what it is to be.
const PART: &str = "EVENTBROKER_SIGNALS_PART";
const PUBLISHERS: usize = 64;

/// The other process. It does nothing when the tests are run as tests.
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
    say_ready_once_somebody_listens();
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
    say_ready_once_somebody_listens();
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

/// One broker after the other, each until a signal.
fn twice() {
    for name in ["first", "second"] {
        let broker = Broker::builder().start().expect("it starts");
        let waiting = std::thread::spawn(move || run_until_signal(&broker, PATIENCE).expect("it listens"));
        wait_for_listeners(1);
        println!("\n{name} waits");
        println!("{name} clean {}", waiting.join().expect("no panic").is_clean());
    }
}

/// Two brokers at once: one that drains at once, and one with a handler that never ends.
fn both() {
    let quick = Broker::builder().start().expect("it starts");
    let slow = Broker::builder().worker_count(1).start().expect("it starts");
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    slow.subscribe("*", move |_| handler_gate.pass()).expect("subscribed");
    slow.publish(event("running")).expect("accepted");
    gate.wait_for_arrival();
    let patient = Duration::from_secs(600);
    let quick = std::thread::spawn(move || run_until_signal(&quick, patient).expect("it listens"));
    let watched = slow.clone();
    let slow = std::thread::spawn(move || run_until_signal(&slow, patient).expect("it listens"));
    wait_for_listeners(2);
    println!("\nready");
    println!("quick clean {}", quick.join().expect("no panic").is_clean());
    wait_until("the first signal has come to the slow one too", || !watched.stats().is_running);
    println!("slow drains");
    println!("slow abandoned {}", slow.join().expect("no panic").abandoned.len());
}

/// A broker, and nobody who asked for signal handlers.
fn plain() {
    let _broker = Broker::builder().start().expect("it starts");
    println!("\nready");
    std::thread::sleep(6 * PATIENCE);
}

/// A signal that comes before anybody listens ends the process.
fn say_ready_once_somebody_listens() {
    std::thread::spawn(|| {
        wait_for_listeners(1);
        println!("\nready");
    });
}

fn wait_for_listeners(count: usize) {
    // The operating system keeps 15 bytes of a thread's name.
    wait_until("somebody waits for signals", || asleep("eventbroker:sig") == count);
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
            .expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (sender, said) = channel();
        // To the last line, heard or not: a process whose output nobody takes would fail.
        std::thread::spawn(move || lines.map_while(Result::ok).for_each(|line| drop(sender.send(line))));
        Self { child, said }
    }

    /// The next line that begins so; the test harness says things of its own.
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
        let process = Process::play("drains");
        process.send(signal);
        let said = process.hear("returned");
        assert_eq!(said, "returned 64 handled 2 drained 2 clean true", "{signal}");
        assert!(process.end().success());
    }
}

#[test]
fn the_second_signal_forces_the_end_and_the_third_is_the_usual_one() {
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
fn a_second_wait_in_the_same_process_drains_as_the_first_did() {
    let process = Process::begin("twice");
    for name in ["first", "second"] {
        process.hear(&format!("{name} waits"));
        process.send("TERM");
        assert_eq!(process.hear(&format!("{name} clean")), format!("{name} clean true"));
    }
    assert!(process.end().success());
}

#[test]
fn a_signal_stops_all_that_wait_and_the_second_one_those_that_still_drain() {
    let process = Process::play("both");
    process.send("TERM");
    assert_eq!(process.hear("quick"), "quick clean true");
    process.hear("slow drains");
    process.send("TERM");
    assert_eq!(process.hear("slow abandoned"), "slow abandoned 1");
    assert!(process.end().success());
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
