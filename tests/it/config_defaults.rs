//! Settings: each has its documented default, and a value outside its bounds is refused with the name of the setting.

use std::time::Duration;

use eventbroker::error::{Problem, StartError, SubscribeError};
use eventbroker::{Broker, Config, Mode, Overflow, RetryPolicy, SubscribeOptions};

use crate::support::{Gate, event};

#[test]
fn a_broker_has_the_documented_defaults() {
    let config = Config::default();
    assert_eq!(config.mode, Mode::Async);
    assert_eq!((config.worker_count, config.max_workers, config.effective_max_workers()), (10, None, 40));
    assert_eq!((config.buffer_size, config.max_waiting), (1_000, 10_000));
    assert_eq!((config.max_events, config.max_in_flight, config.max_dead_letters), (10_000, 100_000, 10_000));
    assert_eq!(config.max_payload_bytes, 1_048_576);
    assert_eq!(config.overflow, Overflow::Reject);
    assert_eq!(config.max_age, Duration::from_secs(24 * 60 * 60));
    assert_eq!(config.cleanup_interval, Duration::from_secs(5 * 60));
    assert_eq!(config.sync_timeout, Duration::from_secs(30));
    assert_eq!(config.max_handler_time, Duration::from_secs(5 * 60));
    assert_eq!(config.instance_id, None);
    assert_eq!(config.retry_policy, RetryPolicy::default());
    assert_eq!((Mode::default(), Overflow::default()), (Mode::Async, Overflow::Reject));
}

#[test]
fn retries_have_the_documented_defaults() {
    let policy = RetryPolicy::default();
    assert_eq!((policy.max_retries, policy.backoff_factor, policy.jitter), (3, 2.0, 0.1));
    assert_eq!((policy.initial_delay, policy.max_delay), (Duration::from_secs(1), Duration::from_secs(30)));
    let delays: Vec<u64> = (1..=7).map(|attempt| policy.nominal_delay(attempt).as_secs()).collect();
    assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
}

#[test]
fn the_default_of_max_workers_follows_the_worker_count() {
    let mut config = Config::default();
    for (worker_count, max_workers) in [(1, 4), (3, 12), (1_024, 4_096)] {
        config.worker_count = worker_count;
        assert_eq!(config.effective_max_workers(), max_workers);
    }
    config.max_workers = Some(1_500);
    assert_eq!(config.effective_max_workers(), 1_500);
}

#[test]
fn a_broker_without_settings_runs_with_its_defaults() {
    let broker = Broker::builder().start().expect("a running broker");
    let id = broker.subscribe("a.*", |_| ()).expect("a subscription");
    let stats = broker.stats();
    assert_eq!(stats.workers, 10);
    let subscription = &stats.subscriptions[0];
    assert_eq!((subscription.concurrency, subscription.queue_capacity), (5, 1_000));
    assert_eq!((&*subscription.name, &*subscription.pattern), (id.to_string().as_str(), "a.*"));
    assert_eq!(id.to_string(), "sub-1");
    assert!(!broker.instance_id().is_empty());
    assert_eq!(&*stats.instance_id, broker.instance_id());
    let accepted = broker.publish(event("b")).expect("accepted");
    let held = broker.get(&accepted.id).expect("the memory store").expect("the event");
    assert_eq!(held.instance_id(), Some(broker.instance_id()));
}

#[test]
fn the_default_queue_holds_a_thousand_events() {
    let broker = Broker::builder().start().expect("a running broker");
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    broker.subscribe("*", move |_| handler_gate.pass()).expect("a subscription");
    for _ in 0..5 {
        broker.publish(event("running")).expect("accepted");
    }
    (0..5).for_each(|_| gate.wait_for_arrival());
    for _ in 0..1_000 {
        broker.publish(event("queued")).expect("accepted");
    }
    assert!(broker.publish(event("refused")).expect_err("full").is_full());
    gate.open();
}

#[test]
fn the_default_concurrency_is_half_of_the_workers_and_at_least_one() {
    for (worker_count, concurrency) in [(1, 1), (2, 1), (3, 1), (4, 2), (9, 4)] {
        let broker = Broker::builder().worker_count(worker_count).build().expect("a broker");
        broker.subscribe("*", |_| ()).expect("a subscription");
        assert_eq!(broker.stats().subscriptions[0].concurrency, concurrency, "{worker_count} workers");
    }
}

#[test]
fn a_subscription_without_an_overflow_policy_uses_that_of_the_broker() {
    let mut config = Config::default();
    (config.buffer_size, config.overflow) = (1, Overflow::DropNewest);
    let broker = Broker::builder().config(config).start().expect("a running broker");
    let gate = Gate::closed();
    let handler_gate = gate.clone();
    broker
        .subscribe_with(SubscribeOptions::new("a").concurrency(1), move |_| handler_gate.pass())
        .expect("a subscription");
    broker.publish(event("a")).expect("accepted");
    gate.wait_for_arrival();
    for _ in 0..3 {
        broker.publish(event("a")).expect("dropped or queued, and not refused");
    }
    assert_eq!(broker.stats().deliveries.dropped, 2);
    let rejecting = SubscribeOptions::new("a").name("rejecting").overflow(Overflow::Reject).concurrency(1);
    let handler_gate = gate.clone();
    broker.subscribe_with(rejecting, move |_| handler_gate.pass()).expect("a subscription");
    broker.publish(event("a")).expect("accepted");
    gate.wait_for_arrival();
    broker.publish(event("a")).expect("accepted");
    assert!(broker.publish(event("a")).expect_err("the policy of the subscription").is_full());
    gate.open();
}

#[test]
fn a_setting_outside_its_bounds_is_refused_by_name() {
    type Spoil = fn(&mut Config);
    let refused: [(&str, Spoil); 21] = [
        ("worker_count", |it| it.worker_count = 0),
        ("worker_count", |it| it.worker_count = 1_025),
        ("max_workers", |it| it.max_workers = Some(9)),
        ("max_workers", |it| it.max_workers = Some(4_097)),
        ("buffer_size", |it| it.buffer_size = 0),
        ("buffer_size", |it| it.buffer_size = 16_777_217),
        ("max_waiting", |it| it.max_waiting = 0),
        ("max_events", |it| it.max_events = 0),
        ("max_events", |it| it.max_events = 100_000_001),
        ("max_in_flight", |it| it.max_in_flight = 0),
        ("max_in_flight", |it| it.max_in_flight = 100_000_001),
        ("max_dead_letters", |it| it.max_dead_letters = 0),
        ("max_payload_bytes", |it| it.max_payload_bytes = 3),
        ("max_payload_bytes", |it| it.max_payload_bytes = (1 << 30) + 1),
        ("max_age", |it| it.max_age = Duration::ZERO),
        ("cleanup_interval", |it| it.cleanup_interval = Duration::from_micros(999)),
        ("max_handler_time", |it| it.max_handler_time = Duration::ZERO),
        ("instance_id", |it| it.instance_id = Some(String::new())),
        ("instance_id", |it| it.instance_id = Some("x".repeat(256))),
        ("retry_policy", |it| it.retry_policy.backoff_factor = f64::NAN),
        ("retry_policy", |it| it.retry_policy.jitter = 1.5),
    ];
    for (field, spoil) in refused {
        let mut config = Config::default();
        spoil(&mut config);
        match Broker::builder().config(config).build() {
            Err(StartError::Invalid(invalid)) => {
                assert_eq!(invalid.field, field);
                assert!(matches!(invalid.problem, Problem::OutOfBounds(_)), "{invalid}");
            }
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[test]
fn an_option_of_a_subscription_outside_its_bounds_is_refused_by_name() {
    let broker = Broker::builder().build().expect("a broker");
    let options = || SubscribeOptions::new("a");
    let backwards = RetryPolicy { initial_delay: Duration::from_secs(31), ..RetryPolicy::default() };
    for (field, spoiled) in [
        ("name", options().name("")),
        ("name", options().name("x".repeat(256))),
        ("concurrency", options().concurrency(0)),
        ("concurrency", options().concurrency(4_097)),
        ("concurrency", options().dedicated(0)),
        ("concurrency", options().dedicated(1_025)),
        ("queue_capacity", options().queue_capacity(0)),
        ("max_waiting", options().max_waiting(0)),
        ("handler_deadline", options().handler_deadline(Duration::ZERO)),
        ("retry_policy", options().retry(backwards)),
    ] {
        match broker.subscribe_with(spoiled, |_| ()) {
            Err(SubscribeError::Invalid(invalid)) => assert_eq!(invalid.field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    assert_eq!(broker.stats().subscriptions, []);
}
