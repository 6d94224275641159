//! The cost of each part by itself, through the public API. The `baseline` of a group is the cost of its harness
//! without the part. Routing has its own bench (`route`), and so has the whole path of an event (`end_to_end`).

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use eventbroker::query::Filter;
use eventbroker::{Broker, Event, EventId, EventType, Pattern, Payload, Source, SubscribeOptions};

/// JSON of 100 bytes.
fn json() -> String {
    format!("{{\"text\":\"{}\"}}", "x".repeat(89))
}

fn build(payload: &Payload) -> Event {
    Event::builder(Source::System, "bench.orders.create").payload_raw(payload.clone()).build().expect("a valid event")
}

fn building(criterion: &mut Criterion) {
    let json = json();
    let payload = Payload::from_json(&json).expect("valid JSON");
    let mut group = criterion.benchmark_group("build");
    group.bench_function("baseline: a look at the clock", |bench| bench.iter(std::time::SystemTime::now));
    group.bench_function("event type, seen before", |bench| {
        bench.iter(|| EventType::parse(black_box("bench.orders.create")).expect("valid"));
    });
    group.bench_function("event with id, time and a payload that was checked", |bench| bench.iter(|| build(&payload)));
    group.bench_function("id from text", |bench| {
        let text = build(&payload).id().to_string();
        bench.iter(|| EventId::parse(black_box(&text)).expect("valid"));
    });
    group.finish();

    let mut group = criterion.benchmark_group("payload of 100 bytes");
    group.bench_function("baseline: the check by serde_json", |bench| {
        bench.iter(|| serde_json::from_str::<serde::de::IgnoredAny>(black_box(&json)).expect("valid"));
    });
    group.bench_function("baseline: that, and a copy", |bench| {
        bench.iter(|| {
            serde_json::from_str::<serde::de::IgnoredAny>(black_box(&json)).expect("valid");
            std::sync::Arc::<str>::from(black_box(json.as_str()))
        });
    });
    group.bench_function("checked and kept", |bench| {
        bench.iter(|| Payload::from_json(black_box(&json)).expect("valid"));
    });
    group.finish();
}

fn codec(criterion: &mut Criterion) {
    let event = build(&Payload::from_json(json()).expect("valid JSON"));
    let text = event.to_json();
    let mut group = criterion.benchmark_group("codec");
    group.bench_function("baseline: a copy of the text", |bench| bench.iter(|| black_box(&text).clone()));
    group.bench_function("baseline: the check by serde_json", |bench| {
        bench.iter(|| serde_json::from_slice::<serde::de::IgnoredAny>(black_box(&text)).expect("valid"));
    });
    group.bench_function("to_json", |bench| bench.iter(|| black_box(&event).to_json()));
    group.bench_function("from_json", |bench| bench.iter(|| Event::from_json(black_box(&text)).expect("valid")));
    group.finish();
}

fn pattern(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pattern");
    let event_type = "shop.orders.create";
    group
        .bench_function("baseline: equal texts", |bench| bench.iter(|| black_box(event_type) == black_box(event_type)));
    for text in ["shop.orders.create", "shop.*.create", "shop.**", "*"] {
        let pattern = Pattern::parse(text).expect("valid");
        group.bench_function(text, |bench| bench.iter(|| black_box(&pattern).matches(black_box(event_type))));
    }
    group.finish();
}

fn store(criterion: &mut Criterion) {
    let payload = Payload::from_json(json()).expect("valid JSON");
    let broker = Broker::builder().start().expect("a broker");
    let mut group = criterion.benchmark_group("store of 10,000 events");
    group.bench_function("baseline: the event", |bench| bench.iter(|| build(&payload)));
    // Without subscriptions a publish costs little more than the store.
    group.bench_function("put, by a publish to nobody", |bench| {
        bench.iter(|| broker.publish(build(&payload)).expect("accepted"));
    });
    let ids: Vec<EventId> = (0..5_000).map(|_| broker.publish(build(&payload)).expect("accepted").id).collect();
    let mut next = ids.iter().cycle();
    group.bench_function("get, with its copy of the event", |bench| {
        bench.iter(|| broker.get(next.next().expect("endless")).expect("no back end"));
    });
    group.bench_function("list of 100", |bench| {
        bench.iter(|| broker.list(&Filter::default()).expect("no back end"));
    });
    group.finish();
}

/// `publish_sync` runs the delivery on the same thread. The difference with and without a key is the cost of the lane.
fn lane(criterion: &mut Criterion) {
    let payload = Payload::from_json(json()).expect("valid JSON");
    let broker = Broker::builder().start().expect("a broker");
    broker.subscribe_with(SubscribeOptions::new("bench.**"), |_| ()).expect("valid options");
    let keyed = || {
        let builder = Event::builder(Source::System, "bench.orders.create").payload_raw(payload.clone());
        builder.key("customer-17").build().expect("a valid event")
    };
    let mut group = criterion.benchmark_group("lane");
    group.bench_function("baseline: the event without a key", |bench| bench.iter(|| build(&payload)));
    group.bench_function("baseline: the event with a key", |bench| bench.iter(keyed));
    group.bench_function("publish_sync without a key", |bench| {
        bench.iter(|| broker.publish_sync(build(&payload)).expect("accepted"));
    });
    group.bench_function("publish_sync with a key", |bench| {
        bench.iter(|| broker.publish_sync(keyed()).expect("accepted"));
    });
    group.finish();
}

criterion_group! {
    name = parts;
    config = Criterion::default().sample_size(20).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    targets = building, codec, pattern, store, lane
}
criterion_main!(parts);
