//! Publishers that wait for a place get their event back when the broker begins to stop.

use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use eventbroker::{Broker, Overflow, SubscribeOptions};

use crate::support::{Gate, PATIENCE, event, in_time, wait_until};

/// The number of publisher threads that are asleep.
fn sleeping_publishers() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a Linux system");
    let stat = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
    tasks.flatten().map(stat).filter(|stat| stat.contains("(publisher-") && stat.contains(") S ")).count()
}

#[test]
fn sixty_four_blocked_publishers_get_their_events_back() {
    const PUBLISHERS: usize = 64;
    let broker = Broker::builder().worker_count(1).start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    let options = SubscribeOptions::new("x").ordered().queue_capacity(2);
    broker
        .subscribe_with(options.overflow(Overflow::Block(Duration::from_secs(3_600))), move |_| pass.pass())
        .expect("valid");
    broker.publish(event("x")).expect("room");
    gate.wait_for_arrival();
    (0..2).for_each(|_| drop(broker.publish(event("x")).expect("room")));

    let ready = Arc::new(Barrier::new(PUBLISHERS + 1));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|number| {
            let (broker, ready) = (broker.clone(), Arc::clone(&ready));
            let publish = move || {
                let event = event("x");
                let id = event.id().clone();
                ready.wait();
                // Both forms wait for a place.
                let refused = match number % 2 {
                    0 => broker.publish(event).expect_err("no place is free"),
                    _ => broker.publish_sync(event).expect_err("no place is free"),
                };
                assert_eq!(*refused.event().id(), id);
                refused.code()
            };
            thread::Builder::new().name(format!("publisher-{number}")).spawn(publish).expect("a thread")
        })
        .collect();
    ready.wait();
    wait_until("all publishers are blocked", || sleeping_publishers() == PUBLISHERS);
    assert!(publishers.iter().all(|publisher| !publisher.is_finished()));

    let stopper = broker.clone();
    let stopping = thread::spawn(move || stopper.stop(PATIENCE));
    for publisher in publishers {
        // Only the stop wakes them: the handler still waits at the gate, and the policy's patience is an hour.
        let code = in_time("a publisher's return", move || publisher.join().expect("no panic"));
        assert_eq!(code, "not_running");
    }
    assert!(!stopping.is_finished(), "the stop drains accepted events");
    gate.open();
    let report = stopping.join().expect("no panic");
    assert!(report.is_clean() && report.drained == 3, "{report:?}");
    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.rejected, stats.attempts), (3, PUBLISHERS as u64, 3));
}
