//! Memory stays bounded however many distinct event types and keys are published. A process of its own, because it
//! measures resident memory.

#[path = "it/support.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eventbroker::{Broker, Event, HandlerError, Outcome, Overflow, RetryPolicy, Source, SubscribeOptions};
use support::{PATIENCE, wait_until};

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux system");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS is there");
    let kib = line.split_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).expect("a number");
    kib * 1_024
}

#[test]
fn distinct_types_and_keys_do_not_pile_up() {
    // A leak of the type or the key alone would be more than 200 bytes for each event.
    const EVENTS: u64 = 200_000;
    const WARM_UP: u64 = 40_000;
    let broker = Broker::builder()
        .worker_count(2)
        .max_events(2_000)
        .retry_policy(RetryPolicy::fixed(1, Duration::from_millis(1)))
        .start()
        .expect("valid settings");
    let handled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&handled);
    let options = SubscribeOptions::new("*").overflow(Overflow::Block(PATIENCE));
    broker
        .subscribe_with(options, move |delivery| {
            // Some events are retried, so that the lanes of their keys wait.
            if delivery.attempt() == 1 && delivery.event().user_id() == Some(1) {
                return Err(HandlerError::retry("once more"));
            }
            count.fetch_add(1, Ordering::Relaxed);
            Ok(Outcome::Done)
        })
        .expect("valid");
    let stream = broker.stream("**").expect("valid");

    let mut base = 0;
    for number in 0..EVENTS {
        if number == WARM_UP {
            base = resident();
        }
        let long = format!("{number:0>200}");
        let event = Event::builder(Source::System, format!("leaf.{long}")).key(&long);
        let event = event.user_id(i64::from(number % 64 == 0)).build().expect("valid");
        broker.publish(event).expect("room");
    }
    wait_until("all are handled", || handled.load(Ordering::Relaxed) == EVENTS);
    let grown = resident().saturating_sub(base);
    assert!(grown < 24 << 20, "resident memory has grown by {} KiB", grown >> 10);
    assert_eq!(broker.stats().retries, EVENTS / 64);
    drop(stream);
}
