//! While a worker is idle, no event waits for another event's call to end.

use std::sync::mpsc::{Receiver, channel};

use eventbroker::{Broker, Delivery, SubscribeOptions};

use crate::support::{Gate, event, receive};

/// A broker whose handlers of "a" and "b" are held at the gate by an event of type "a.held", and tell of all others.
fn running(gate: &Gate, concurrency: usize) -> (Broker, Receiver<String>) {
    let broker = Broker::builder().worker_count(4).max_workers(4).start().expect("a running broker");
    let (sender, handled) = channel();
    for pattern in ["a.*", "b.*"] {
        let (gate, sender) = (gate.clone(), sender.clone());
        let handler = move |delivery: &Delivery<'_>| match delivery.event().event_type().as_str() {
            "a.held" => gate.pass(),
            other => sender.send(other.to_owned()).expect("received"),
        };
        let options = SubscribeOptions::new(pattern).concurrency(concurrency);
        broker.subscribe_with(options, handler).expect("a subscription");
    }
    (broker, handled)
}

#[test]
fn whatever_a_worker_was_about_to_do_when_the_event_came() {
    for concurrency in [1, 2] {
        let gate = Gate::closed();
        let (broker, handled) = running(&gate, concurrency);
        for round in 0..1_500 {
            // A worker has just run something, and looks for more.
            broker.publish(event("a.quick")).expect("accepted");
            assert_eq!(receive(&handled, "the quick one"), "a.quick");
            // Now come a long call and another subscription's event, in either order.
            let types = if round % 2 == 0 { ["b.quick", "a.held"] } else { ["a.held", "b.quick"] };
            for event_type in types {
                broker.publish(event(event_type)).expect("accepted");
            }
            assert_eq!(receive(&handled, "the one that nothing holds up"), "b.quick", "round {round}");
            gate.wait_for_arrival();
            if concurrency > 1 {
                broker.publish(event("a.quick")).expect("accepted");
                assert_eq!(receive(&handled, "the one for the free slot"), "a.quick", "round {round}");
            }
            gate.open_once();
        }
    }
}
