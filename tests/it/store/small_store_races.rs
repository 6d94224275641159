//! A store of one event: concurrent publishers make progress, however long their events stay open.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use eventbroker::Broker;

use crate::support::{Gate, PATIENCE, event, in_time};

const ROUNDS: usize = 300;

#[test]
fn a_publish_returns_while_a_concurrent_one_s_event_stays_open() {
    for _ in 0..ROUNDS {
        let broker = Broker::builder().max_events(1).max_in_flight(8).worker_count(1).start().expect("valid settings");
        let gate = Gate::closed();
        let pass = gate.clone();
        broker.subscribe("held", move |_| pass.pass()).expect("a valid pattern");
        let publishers = broker.clone();
        in_time("both publishes, while one event is still open", move || {
            let arrived = AtomicUsize::new(0);
            thread::scope(|scope| {
                for event_type in ["held", "unwanted"] {
                    let (event, broker, arrived) = (event(event_type), &publishers, &arrived);
                    scope.spawn(move || {
                        arrived.fetch_add(1, Ordering::SeqCst);
                        while arrived.load(Ordering::SeqCst) < 2 {
                            // A spin would keep a busy core from the other publisher.
                            thread::yield_now();
                        }
                        broker.publish(event).expect("room");
                    });
                }
            });
        });
        gate.open();
        assert!(broker.stop(PATIENCE).is_clean());
    }
}
