//! The policy `Block` of several subscriptions: a publisher waits for each of them no longer than its patience.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use eventbroker::{Broker, Overflow, PublishError, SubscribeOptions};

use crate::support::{Gate, event, manual_clock, stats_of, wait_until};

#[test]
fn queues_that_are_full_alternately_do_not_renew_the_patience() {
    let patience = Duration::from_secs(60);
    let clock = manual_clock();
    let broker = Broker::builder().manual_clock(&clock).start().expect("valid settings");
    // Both subscriptions are full: one call waits at the gate, one event is queued. Each matches a type of its own, and
    // both match "left.right".
    let sides = [("left", "left.*", "left.own"), ("right", "*.right", "own.right")];
    let gates = sides.map(|(name, pattern, own)| {
        let gate = Gate::closed();
        let pass = gate.clone();
        let options = SubscribeOptions::new(pattern).name(name).concurrency(1).queue_capacity(1);
        broker
            .subscribe_with(options.overflow(Overflow::Block(patience)), move |_| pass.pass())
            .expect("valid options");
        broker.publish(event(own)).expect("room");
        gate.wait_for_arrival();
        broker.publish(event(own)).expect("room");
        gate
    });
    let (sender, outcomes) = channel();
    let (publisher, publishers_clock) = (broker.clone(), clock.clone());
    let thread = thread::spawn(move || {
        let began = publishers_clock.elapsed();
        let outcome = publisher.publish(event("left.right"));
        sender.send((outcome, publishers_clock.elapsed() - began)).expect("received");
    });
    let mut answer = None;
    for round in 0..10 {
        let (name, _, own) = sides[round % 2];
        let gate = &gates[round % 2];
        // One queue has a free place for a moment.
        gate.open_once();
        gate.wait_for_arrival();
        match outcomes.recv_timeout(Duration::from_millis(20)) {
            Ok(outcome) => answer = Some(outcome),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => panic!("the publishing thread has ended"),
        }
        if answer.is_some() {
            break;
        }
        wait_until("the place is taken again", || broker.publish_async(event(own)).is_ok());
        assert_eq!(stats_of(&broker, name).queued, 1);
        clock.advance(patience * 2 / 3);
    }
    gates.iter().for_each(Gate::open);
    let (outcome, waited) = answer.expect("refused before the tenth turn");
    assert!(matches!(outcome, Err(PublishError::Full { .. })), "{outcome:?}");
    assert!(waited <= 2 * patience, "refused after {waited:?}");
    thread.join().expect("no panic");
}
