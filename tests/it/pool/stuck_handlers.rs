//! A handler that runs longer than `max_handler_time` counts as stuck until it returns.

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
    wait_until("the call counts as stuck", || {
        let stuck = broker.stats().stuck_handlers;
        let passed = clock.elapsed() - start;
        assert!(stuck == 0 || passed >= LIMIT, "too early: after {passed:?}");
        clock.advance(Duration::from_millis(250));
        stuck == 1
    });
    gate.open();
    wait_until("no call counts as stuck", || {
        clock.advance(Duration::from_millis(250));
        broker.stats().stuck_handlers == 0
    });
    assert_eq!(broker.stats().deliveries.done, 1, "the stuck call was not interrupted");
}

#[test]
fn a_stuck_call_on_a_shared_worker_is_counted() {
    stuck_and_back(SubscribeOptions::new("x"));
}

#[test]
fn a_stuck_call_on_a_dedicated_thread_is_counted() {
    stuck_and_back(SubscribeOptions::new("x").dedicated(1));
}
