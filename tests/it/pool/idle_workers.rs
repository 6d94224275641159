//! While a worker is idle, no event waits for the end of another event's call.

use std::sync::mpsc::{Receiver, channel};

use eventbroker::{Broker, Delivery, SubscribeOptions};

use crate::support::{Gate, event, receive};

/// A broker with subscriptions "a.*" and "b.*". The handler waits at the gate for "a.held", and sends any other type.
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
fn an_event_is_handled_beside_a_long_call_whatever_the_state_of_the_worker() {
    for concurrency in [1, 2] {
        let gate = Gate::closed();
        let (broker, handled) = running(&gate, concurrency);
        for round in 0..1_500 {
            // A worker has just run a call, and polls for more.
            broker.publish(event("a.quick")).expect("accepted");
            assert_eq!(receive(&handled, "the quick event"), "a.quick");
            // A long call and an event of another subscription arrive, in either order.
            let types = if round % 2 == 0 { ["b.quick", "a.held"] } else { ["a.held", "b.quick"] };
            for event_type in types {
                broker.publish(event(event_type)).expect("accepted");
            }
            assert_eq!(receive(&handled, "the event of the other subscription"), "b.quick", "round {round}");
            gate.wait_for_arrival();
            if concurrency > 1 {
                broker.publish(event("a.quick")).expect("accepted");
                assert_eq!(receive(&handled, "the event for the free permit"), "a.quick", "round {round}");
            }
            gate.open_once();
        }
    }
}
