//! Every thread of a broker has a name, and is joined when the broker stops. A process of its own with one test, which
//! counts the threads of the whole process.

#[path = "it/support.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::time::Duration;

use eventbroker::{Broker, SubscribeOptions};
use support::{Gate, PATIENCE, event, manual_clock, wait_until};

/// The number of broker threads in this process. Linux truncates their names to 15 bytes.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("a Linux system");
    let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
    tasks.flatten().map(name).filter(|name| name.starts_with("eventbroker:")).count()
}

#[test]
fn no_thread_outlives_its_broker() {
    assert_eq!(threads(), 0);
    let brokers: Vec<Broker> =
        (1..=3).map(|count| Broker::builder().worker_count(count).start().expect("valid settings")).collect();
    // One timer per broker, and 1 + 2 + 3 workers.
    wait_until("all have started", || threads() == 9);
    let first = &brokers[0];
    let options = SubscribeOptions::new("own").dedicated(4);
    let id = first.subscribe_with(options.clone(), |_| ()).expect("valid");
    wait_until("the dedicated ones have started", || threads() == 13);
    assert_eq!(first.stats().workers, 5);
    first.unsubscribe(id).expect("subscribed");
    wait_until("the dedicated ones have ended", || threads() == 9);
    first.subscribe_with(options, |_| ()).expect("valid");
    first.publish_sync(event("own")).expect("room");

    // The threads by which a pool has grown are joined too.
    let clock = manual_clock();
    let grown = Broker::builder().worker_count(1).manual_clock(&clock).start().expect("valid settings");
    let gate = Gate::closed();
    for pattern in ["a", "b", "c"] {
        let pass = gate.clone();
        grown.subscribe(pattern, move |_| pass.pass()).expect("valid");
        grown.publish(event(pattern)).expect("room");
    }
    wait_until("all run", || {
        clock.advance(Duration::from_millis(5));
        grown.stats().workers_busy == 3
    });
    gate.open();
    wait_until("all have ended", || grown.stats().in_flight == 0);
    assert!(grown.stats().workers >= 3);

    for broker in brokers.iter().chain([&grown]) {
        let report = broker.stop(PATIENCE);
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(broker.stats().workers, 0);
    }
    // A joined thread may stay in /proc for a moment.
    wait_until("no thread is left", || threads() == 0);

    // Dropping the last handle joins the threads too.
    for _ in 0..50 {
        let broker = Broker::builder().worker_count(2).start().expect("valid settings");
        broker.publish(event("x")).expect("room");
        drop(broker);
    }
    wait_until("no thread is left", || threads() == 0);
}
