//! Events without a key: none waits behind a running call while its subscription has a free permit.

use std::sync::{Arc, Barrier};

use eventbroker::{Broker, Delivery, SubscribeOptions, Verdict};

use crate::support::{Gate, Settlements, event, keyed, manual_clock};

/// A handler that waits at the gate for events of type "held".
fn held_by(gate: &Gate) -> impl Fn(&Delivery<'_>) + Send + Sync + 'static {
    let gate = gate.clone();
    move |delivery| {
        if delivery.event().event_type().as_str() == "held" {
            gate.pass();
        }
    }
}

fn others_go_on(options: SubscribeOptions, slots: usize) {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let gate = Gate::closed();
    broker.subscribe_with(options, held_by(&gate)).expect("a subscription");
    for busy in 1..slots {
        broker.publish(event("held")).expect("accepted");
        gate.wait_for_arrival();
        // One event at a time, then many at once.
        for _ in 0..20 {
            broker.publish(event("quick")).expect("accepted");
            assert_eq!(settlements.next().event_type, "quick", "{busy} of {slots} permits are taken");
        }
        for _ in 0..200 {
            broker.publish(event("quick")).expect("accepted");
        }
        assert!(settlements.take(200).iter().all(|it| it.verdict == Verdict::Done));
    }
    gate.open();
    settlements.take(slots - 1);
}

#[test]
fn with_one_free_permit_all_other_events_are_handled() {
    for slots in [2, 3, 5] {
        others_go_on(SubscribeOptions::new("*").concurrency(slots), slots);
    }
}

#[test]
fn a_dedicated_subscription_with_a_free_thread_handles_all_other_events() {
    for slots in [2, 4] {
        others_go_on(SubscribeOptions::new("*").dedicated(slots), slots);
    }
}

#[test]
fn busy_keys_do_not_block_events_without_a_key() {
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let gate = Gate::closed();
    broker.subscribe_with(SubscribeOptions::new("*").concurrency(3), held_by(&gate)).expect("a subscription");
    for key in ["k", "l", "k", "l", "k"] {
        broker.publish(keyed("held", key)).expect("accepted");
    }
    gate.wait_for_arrival();
    gate.wait_for_arrival();
    for _ in 0..50 {
        broker.publish(event("quick")).expect("accepted");
        assert_eq!(settlements.next().event_type, "quick");
    }
    gate.open();
    assert_eq!(settlements.take(5).len(), 5);
}

#[test]
fn events_queued_before_the_permits_were_taken_are_handled() {
    // The two "held" events take two permits; the third runs the many events behind them.
    let broker = Broker::builder().start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let gate = Gate::closed();
    broker.subscribe_with(SubscribeOptions::new("*").concurrency(3), held_by(&gate)).expect("a subscription");
    for event_type in ["quick", "held", "quick", "held"].into_iter().chain(["quick"; 300]) {
        broker.publish(event(event_type)).expect("accepted");
    }
    assert!(settlements.take(302).iter().all(|it| it.event_type == "quick"));
    gate.open();
    settlements.take(2);
}

#[test]
fn events_are_handled_while_the_clock_stands_still() {
    let broker = Broker::builder().manual_clock(&manual_clock()).start().expect("a running broker");
    let settlements = Settlements::of(&broker);
    let gate = Gate::closed();
    broker.subscribe_with(SubscribeOptions::new("*").concurrency(2), held_by(&gate)).expect("a subscription");
    broker.publish(event("held")).expect("accepted");
    for _ in 0..50 {
        broker.publish(event("quick")).expect("accepted");
        assert_eq!(settlements.next().event_type, "quick");
    }
    gate.open();
    settlements.next();
}

#[test]
fn all_permits_can_be_taken_at_once() {
    for (options, slots) in [
        (SubscribeOptions::new("*").concurrency(5), 5),
        (SubscribeOptions::new("*").dedicated(3), 3),
        (SubscribeOptions::new("*").concurrency(10), 10),
    ] {
        let broker = Broker::builder().start().expect("a running broker");
        let settlements = Settlements::of(&broker);
        let together = Arc::new(Barrier::new(slots));
        let meet = move |_: &Delivery<'_>| {
            together.wait();
        };
        broker.subscribe_with(options, meet).expect("a subscription");
        for _ in 0..3 * slots {
            broker.publish(event("a")).expect("accepted");
        }
        assert!(settlements.take(3 * slots).iter().all(|it| it.verdict == Verdict::Done));
    }
}
