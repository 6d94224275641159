//! An event end to end: built, published, stored, routed, dispatched, handled, completed. The baseline is the cost of
//! the harness: building the same events only.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use eventbroker::{Broker, Event, Payload, Source, SubscribeOptions};

/// A payload of 100 bytes, validated once.
fn payload() -> Payload {
    Payload::from_json(format!("{{\"text\":\"{}\"}}", "x".repeat(89))).expect("valid JSON")
}

fn build(payload: &Payload) -> Event {
    Event::builder(Source::System, "bench.orders.create").payload_raw(payload.clone()).build().expect("a valid event")
}

/// Publishes `count` events from one thread and waits until all are completed.
fn publish_and_complete(broker: &Broker, payload: &Payload, count: u64) -> Duration {
    let before = broker.stats().completed;
    let started = Instant::now();
    for _ in 0..count {
        let mut event = build(payload);
        while let Err(error) = broker.publish(event) {
            event = error.into_event();
            std::thread::yield_now();
        }
    }
    while broker.stats().completed < before + count {
        std::thread::yield_now();
    }
    started.elapsed()
}

fn end_to_end(criterion: &mut Criterion) {
    let payload = payload();
    let mut group = criterion.benchmark_group("end_to_end");
    group.throughput(Throughput::Elements(1)).sample_size(20).measurement_time(Duration::from_secs(8));
    group.bench_function("building the events only", |bench| bench.iter(|| black_box(build(&payload))));
    for capacity in [1_024, 65_536] {
        let broker = Broker::builder().start().expect("a broker");
        let options = SubscribeOptions::new("bench.orders.*").queue_capacity(capacity);
        broker
            .subscribe_with(options, |delivery| {
                black_box(delivery.attempt());
            })
            .expect("a subscription");
        let id = BenchmarkId::new("one publisher, one subscription, queue", capacity);
        group.bench_function(id, |bench| bench.iter_custom(|count| publish_and_complete(&broker, &payload, count)));
    }
    let broker = Broker::builder().start().expect("a broker");
    broker
        .subscribe("bench.orders.*", |delivery| {
            black_box(delivery.attempt());
        })
        .expect("a subscription");
    group.bench_function("publish_sync, one subscription", |bench| {
        bench.iter(|| broker.publish_sync(build(&payload)).expect("accepted"));
    });
    group.finish();
}

criterion_group!(benches, end_to_end);
criterion_main!(benches);
