//! `delivery.cancelled()` turns true when a call has run for its subscription's `handler_deadline`, and only for that call.

use std::sync::mpsc::channel;
use std::time::Duration;

use eventbroker::{Broker, SubscribeOptions, Verdict};

use crate::support::{Gate, Settlements, event, manual_clock, receive};

#[test]
fn the_call_is_told_when_its_time_is_up_and_its_result_still_counts() {
    let clock = manual_clock();
    let broker = Broker::builder().manual_clock(&clock).start().expect("valid settings");
    let gate = Gate::closed();
    let (pass, (sender, seen)) = (gate.clone(), channel());
    let options = SubscribeOptions::new("x").ordered().handler_deadline(Duration::from_secs(5));
    broker
        .subscribe_with(options, move |delivery| {
            for _ in 0..3 {
                let _ = sender.send(delivery.cancelled());
                pass.pass();
            }
        })
        .expect("valid");
    let settlements = Settlements::of(&broker);
    broker.publish(event("x")).expect("room");
    broker.publish(event("x")).expect("room");
    for _ in 0..2 {
        // The time of each call counts from its own start.
        assert!(!receive(&seen, "the first look"));
        clock.advance(Duration::from_millis(4_999));
        gate.open_once();
        assert!(!receive(&seen, "the second look"));
        clock.advance(Duration::from_millis(1));
        gate.open_once();
        assert!(receive(&seen, "the third look"));
        gate.open_once();
        assert_eq!(settlements.next().verdict, Verdict::Done);
    }
}

#[test]
fn without_one_a_call_may_take_its_time() {
    let clock = manual_clock();
    let broker = Broker::builder().manual_clock(&clock).start().expect("valid settings");
    let (sender, seen) = channel();
    broker
        .subscribe("x", move |delivery| {
            clock.advance(Duration::from_secs(30 * 24 * 3_600));
            let _ = sender.send(delivery.cancelled());
        })
        .expect("valid");
    broker.publish(event("x")).expect("room");
    assert!(!receive(&seen, "the look"));
}
