//! The cost of routing: the same types against one subscription, and against 100,000 of which one matches.
//!
//! `baseline` is the loop without routing; subtract it before comparing. Each sample routes every type of its list
//! once, so the figures per element are per event.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use eventbroker::internals::{Router, matches};
use eventbroker::{EventType, Pattern};

/// The number of subscriptions beside the one that matches.
const OTHERS: u64 = 99_999;

type Targets = Router<Arc<u64>>;

fn pattern(text: &str) -> Pattern {
    Pattern::parse(text).expect("a valid pattern")
}

fn types(count: usize, text: impl Fn(usize) -> String) -> Vec<EventType> {
    // Allocated in another order than used, so that memory is not read sequentially.
    let mut types: Vec<_> = (0..count).map(|n| EventType::parse(&text(n)).expect("a valid event type")).collect();
    for n in 0..count {
        types.swap(n, (n * 7_919 + 13) % count);
    }
    types
}

/// A router with one pattern that matches every type of this bench, and this many others.
fn router(others: u64, text: impl Fn(u64) -> String) -> Targets {
    let router = Router::new();
    router.insert(&pattern("shop.*.create"), 0, Arc::new(0));
    for n in 1..=others {
        router.insert(&pattern(&text(n)), n, Arc::new(n));
    }
    router
}

/// Shapes of the other patterns: no common segment with the types, a common first segment, or a mismatch only in the
/// last segment.
fn shapes() -> [(&'static str, Targets); 4] {
    [
        ("1", router(0, |_| String::new())),
        ("100k_apart", router(OTHERS, |n| format!("other.e{n}.create"))),
        ("100k_siblings", router(OTHERS, |n| format!("shop.f{n}.create"))),
        ("100k_almost", router(OTHERS, |n| format!("shop.e{n}.delete"))),
    ]
}

fn route_all(router: &Targets, types: &[EventType]) {
    for event_type in types {
        assert_eq!(black_box(router.lookup(black_box(event_type)).targets().len()), 1);
    }
}

fn compare(c: &mut Criterion, name: &str, types: &[EventType]) {
    let mut group = c.benchmark_group(name);
    group.throughput(Throughput::Elements(types.len() as u64));
    group.bench_function("baseline", |b| {
        b.iter(|| types.iter().for_each(|event_type| _ = black_box(black_box(event_type).as_str().len())));
    });
    for (shape, router) in &shapes() {
        group.bench_function(*shape, |b| b.iter(|| route_all(router, types)));
    }
    group.finish();
}

fn hit(c: &mut Criterion) {
    // Few enough types that two of them rarely share a slot of the cache.
    compare(c, "hit_1_type", &types(1, |n| format!("shop.e{n}.create")));
    compare(c, "hit_4_types", &types(4, |n| format!("shop.e{n}.create")));
}

fn miss(c: &mut Criterion) {
    // Far more types than slots in the cache, routed in turn: every one is a miss.
    compare(c, "miss_20k_types", &types(20_000, |n| format!("shop.e{n}.create")));
    compare(c, "miss_100k_types", &types(100_000, |n| format!("shop.e{n}.create")));
}

/// Patterns of 16 segments with 8 to 15 wildcards at random positions, so that the trie walk has as many paths as
/// patterns.
fn deep_wildcards(c: &mut Criterion) {
    let router = Router::new();
    let mut state = 1_u64;
    for id in 0..1_000 {
        let mut segments = ["a"; 16];
        let mut wildcards = 8 + id % 8;
        while wildcards > 0 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = &mut segments[(state >> 60) as usize];
            if *place == "a" {
                *place = "*";
                wildcards -= 1;
            }
        }
        router.insert(&pattern(&segments.join(".")), id, Arc::new(id));
    }
    // Replacing an unrelated target invalidates the cache before each route.
    let other = pattern("b");
    let all = EventType::parse(&["a"; 16].join(".")).expect("a valid event type");
    let some = EventType::parse(&format!("{}.z", ["a"; 15].join("."))).expect("a valid event type");
    let mut group = c.benchmark_group("deep_wildcards");
    group.bench_function("baseline", |b| b.iter(|| router.insert(&other, 2_000, Arc::new(0))));
    for (name, event_type) in [("all_match", &all), ("some_match", &some)] {
        group.bench_function(name, |b| {
            b.iter(|| {
                router.insert(&other, 2_000, Arc::new(0));
                black_box(router.lookup(event_type).targets().len())
            });
        });
    }
    group.finish();
}

fn change(c: &mut Criterion) {
    let patterns: Vec<_> = (0..100_000).map(|n| pattern(&format!("shop.e{n}.create"))).collect();
    let mut group = c.benchmark_group("change");
    group.sample_size(10);
    group.throughput(Throughput::Elements(patterns.len() as u64));
    group.bench_function("subscribe_and_unsubscribe_100k", |b| {
        b.iter(|| {
            let router = Router::new();
            for (id, pattern) in (0..).zip(&patterns) {
                router.insert(pattern, id, Arc::new(id));
            }
            for (id, pattern) in (0..).zip(&patterns) {
                router.remove(pattern, id);
            }
        });
    });
    group.bench_function("subscribe_100k", |b| {
        b.iter_with_large_drop(|| {
            let router = Router::new();
            for (id, pattern) in (0..).zip(&patterns) {
                router.insert(pattern, id, Arc::new(id));
            }
            router
        });
    });
    group.finish();
}

fn reference(c: &mut Criterion) {
    c.bench_function("matches", |b| {
        b.iter(|| matches(black_box("shop.*.create"), black_box("shop.orders.create")));
    });
}

criterion_group! {
    name = route;
    config = Criterion::default().sample_size(30).warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(2));
    targets = hit, miss, deep_wildcards, change, reference
}
criterion_main!(route);
