//! Metrics by source and type: every event is counted and timed, and the number of types is bounded.

use std::time::Duration;

use eventbroker::metrics::{Histogram, TypeMetrics};
use eventbroker::{Broker, Event, Outcome, RetryPolicy, Source, SubscribeOptions};

use crate::support::{Settlements, manual_clock, wait_until};

fn event(source: Source, event_type: &str) -> Event {
    Event::builder(source, event_type).build().expect("a valid event")
}

/// Source, type, published, completed, failed, timed.
type Row = (Source, String, u64, u64, u64, u64);

fn row(of: &TypeMetrics) -> Row {
    let (source, event_type) = of.of.clone().expect("counted by itself");
    (source, event_type.to_string(), of.published, of.completed, of.failed, of.processing.count())
}

#[test]
fn each_event_is_counted_for_its_source_and_type() {
    let broker = Broker::builder().start().expect("a broker");
    let settlements = Settlements::of(&broker);
    broker
        .subscribe("shop.*", |delivery| match delivery.event().event_type().as_str() {
            "shop.fails" => Outcome::Permanent("no".into()),
            _ => Outcome::Done,
        })
        .expect("a subscription");
    for (source, event_type, count) in
        [(Source::System, "shop.sold", 3), (Source::Database, "shop.sold", 2), (Source::System, "shop.fails", 1)]
    {
        for _ in 0..count {
            broker.publish(event(source, event_type)).expect("accepted");
        }
    }
    settlements.take(6);
    broker.publish(event(Source::Internal, "nobody.wants")).expect("accepted");
    wait_until("all are done", || broker.stats().in_flight == 0);

    let metrics = broker.metrics();
    // The notice of the dead letter is an event too.
    let mut rows: Vec<Row> = metrics.types.iter().map(row).collect();
    rows.sort();
    assert_eq!(
        rows,
        [
            (Source::Database, "shop.sold".into(), 2, 2, 0, 2),
            (Source::System, "eventbroker.dead_letter".into(), 1, 1, 0, 0),
            (Source::System, "shop.fails".into(), 1, 0, 1, 1),
            (Source::System, "shop.sold".into(), 3, 3, 0, 3),
            (Source::Internal, "nobody.wants".into(), 1, 1, 0, 0),
        ]
    );
    assert_eq!(metrics.whole.count(), 8);
    assert_eq!(metrics.store.events, 8);
    assert_eq!(metrics.oldest_open, None);
}

#[test]
fn a_slow_event_is_counted_in_the_bucket_of_its_processing_time() {
    const TOOK: Duration = Duration::from_millis(2_500);
    let clock = manual_clock();
    let broker = Broker::builder().manual_clock(&clock).start().expect("a broker");
    let settlements = Settlements::of(&broker);
    let options = SubscribeOptions::new("*").retry(RetryPolicy::fixed(1, TOOK));
    broker
        .subscribe_with(
            options,
            |delivery| {
                if delivery.attempt() == 1 { Outcome::Retry("not yet".into()) } else { Outcome::Done }
            },
        )
        .expect("a subscription");
    broker.publish(event(Source::System, "a")).expect("accepted");
    crate::support::wait_for_retries(&broker, 1, 1);
    assert!(broker.metrics().oldest_open.is_some());
    clock.advance(TOOK);
    settlements.next();
    wait_until("the event is completed", || broker.stats().completed == 1);

    let took = broker.metrics().types[0].processing;
    let bucket = Histogram::BOUNDS.iter().position(|bound| *bound == TOOK).expect("a bound");
    assert_eq!((took.count(), took.counts()[bucket]), (1, 1));
    assert_eq!(took.sum(), TOOK);
}

#[test]
fn types_beyond_the_bound_are_counted_together() {
    const TYPES: u64 = 20_000;
    let broker = Broker::builder().max_events(100).start().expect("a broker");
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let broker = &broker;
            scope.spawn(move || {
                for number in (thread..TYPES).step_by(4) {
                    broker.publish(event(Source::System, &format!("flood.{number}"))).expect("accepted");
                }
            });
        }
    });
    let types = broker.metrics().types;
    assert_eq!(types.len(), 101);
    assert_eq!(types.iter().filter(|it| it.of.is_none()).count(), 1);
    let (own, others) = types.split_at(100);
    assert!(own.iter().all(|it| (it.published, it.completed) == (1, 1)));
    assert_eq!((others[0].published, others[0].completed, others[0].failed), (TYPES - 100, TYPES - 100, 0));
}

#[test]
fn concurrent_publishes_of_one_type_are_counted_exactly() {
    const EACH: u64 = 5_000;
    let broker = Broker::builder().start().expect("a broker");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..EACH).for_each(|_| _ = broker.publish(event(Source::System, "a")).expect("accepted")));
        }
    });
    let types = broker.metrics().types;
    assert_eq!((types.len(), types[0].published, types[0].completed), (1, 4 * EACH, 4 * EACH));
}

#[test]
fn counting_by_type_can_be_switched_off() {
    let broker = Broker::builder().metrics(false).start().expect("a broker");
    broker.publish(event(Source::System, "a")).expect("accepted");
    let metrics = broker.metrics();
    assert_eq!((metrics.types.len(), metrics.whole.count(), metrics.stats.accepted), (0, 0, 1));
}
