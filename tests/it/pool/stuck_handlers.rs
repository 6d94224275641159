//! A handler that runs longer than `max_handler_time` is reported as stuck for as long as it runs.

use std::time::Duration;

use eventbroker::{Broker, Config, SubscribeOptions};

use crate::support::{Gate, event, manual_clock, wait_until};

const LIMIT: Duration = Duration::from_secs(60);

fn stuck_and_back(options: SubscribeOptions) {
    let clock = manual_clock();
    let mut config = Config::default();
    config.max_handler_time = LIMIT;
    config.worker_count = 2;
    let broker = Broker::builder().config(config).manual_clock(&clock).start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    broker.subscribe_with(options, move |_| pass.pass()).expect("valid");
    assert_eq!(broker.stats().stuck_handlers, 0);
    broker.publish(event("x")).expect("room");
    gate.wait_for_arrival();
    let start = clock.elapsed();
    wait_until("it counts as stuck", || {
        let stuck = broker.stats().stuck_handlers;
        let passed = clock.elapsed() - start;
        assert!(stuck == 0 || passed >= LIMIT, "too early: after {passed:?}");
        clock.advance(Duration::from_millis(250));
        stuck == 1
    });
    gate.open();
    wait_until("it counts no more", || {
        clock.advance(Duration::from_millis(250));
        broker.stats().stuck_handlers == 0
    });
    assert_eq!(broker.stats().deliveries.done, 1, "it was reported, not ended");
}

#[test]
fn on_a_shared_thread() {
    stuck_and_back(SubscribeOptions::new("x"));
}

#[test]
fn on_a_thread_of_its_own() {
    stuck_and_back(SubscribeOptions::new("x").dedicated(1));
}
