//! Brokers on the loopback, a back end inside this process, for the tests beside this file; and its run of the
//! conformance suite.

use std::collections::BTreeSet;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use eventbroker::stats::BridgeStats;
use eventbroker::{Broker, Config, Event, EventId, RetryPolicy, Scope, SubscribeOptions};
use eventbroker_conformance::loopback::Loopback;

use crate::support::PATIENCE;

mod conformance {
    use eventbroker_conformance::loopback::Loopback;

    eventbroker_conformance::conformance_tests!(Loopback::with_broadcast);
}

/// How long a broker takes at most to resume after an outage.
pub(super) const RECOVERY: Duration = Duration::from_secs(3);

pub(super) fn broker(loopback: &Loopback) -> Broker {
    broker_with(loopback, Config::default())
}

pub(super) fn broker_with(loopback: &Loopback, config: Config) -> Broker {
    let retry = RetryPolicy::fixed(3, Duration::from_millis(5));
    let builder = Broker::builder().config(config).worker_count(4).retry_policy(retry);
    builder.provider(loopback.provider()).start().expect("a running broker")
}

pub(super) fn named(name: &str, pattern: &str) -> SubscribeOptions {
    SubscribeOptions::new(pattern).name(name)
}

pub(super) fn local(name: &str, pattern: &str) -> SubscribeOptions {
    named(name, pattern).scope(Scope::Local)
}

pub(super) fn next(calls: &Receiver<EventId>) -> EventId {
    calls.recv_timeout(PATIENCE).expect("the handler is called")
}

pub(super) fn bridge_stats(broker: &Broker) -> BridgeStats {
    broker.stats().bridge.expect("a back end")
}

pub(super) fn finish(broker: &Broker) {
    let report = broker.stop(PATIENCE);
    assert!(report.is_clean(), "{report:?}");
}

pub(super) fn ids_of(events: &[Event]) -> BTreeSet<EventId> {
    events.iter().map(|event| event.id().clone()).collect()
}
