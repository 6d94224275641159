//! `handler_deadline`: `delivery.cancelled()` becomes true once a call has run for this time, and only for that call.

use std::sync::mpsc::channel;
use std::time::Duration;

use eventbroker::{Broker, SubscribeOptions, Verdict};

use crate::support::{Gate, Settlements, event, manual_clock, receive};

#[test]
fn a_call_past_its_deadline_is_cancelled_and_its_result_still_counts() {
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
        // The deadline of each call counts from its own start.
        assert!(!receive(&seen, "the first reading"));
        clock.advance(Duration::from_millis(4_999));
        gate.open_once();
        assert!(!receive(&seen, "the second reading"));
        clock.advance(Duration::from_millis(1));
        gate.open_once();
        assert!(receive(&seen, "the third reading"));
        gate.open_once();
        assert_eq!(settlements.next().verdict, Verdict::Done);
    }
}

#[test]
fn without_a_deadline_no_call_is_cancelled() {
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
    assert!(!receive(&seen, "the reading"));
}
