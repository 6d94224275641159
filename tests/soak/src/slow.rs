//! Slow subscriptions beside healthy ones.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Overflow, SubscribeOptions};

use crate::figures::{Figures, at_rate, event, quantile};

const SUBSCRIPTIONS: usize = 100;
/// Healthy subscriptions beside the slow ones.
const HEALTHY: usize = 10;
/// Longer than any run.
const PATIENT: Duration = Duration::from_secs(60);

/// The settings of the slow one among a hundred subscriptions.
#[derive(Clone, Copy)]
struct Slow {
    overflow: Overflow,
    /// It receives, and sleeps on, one event in this many. The others have a type that its pattern does not match.
    one_in: u64,
    sleep: Duration,
    /// Events per second offered; `None` for no limit.
    offered: Option<u32>,
}

/// The counts of a run.
struct Run {
    attempted: u64,
    accepted: u64,
    rejected: u64,
    dropped: u64,
    /// Events per second handled by the slowest of the healthy subscriptions.
    rate: f64,
}

fn hundred(slow: Slow, duration: Duration) -> Run {
    let broker = Broker::builder().start().expect("a broker");
    let handled: Arc<Vec<AtomicU64>> = Arc::new((1..SUBSCRIPTIONS).map(|_| AtomicU64::new(0)).collect());
    for number in 1..SUBSCRIPTIONS {
        let handled = Arc::clone(&handled);
        // `Block`, because the publisher is faster than a hundred subscriptions.
        let options = SubscribeOptions::new("slow.**").overflow(Overflow::Block(Duration::from_secs(10)));
        broker
            .subscribe_with(options, move |_| {
                handled[number - 1].fetch_add(1, Ordering::Relaxed);
            })
            .expect("a subscription");
    }
    let pattern = if slow.one_in > 1 { "slow.entry.rare" } else { "slow.**" };
    let options = SubscribeOptions::new(pattern).overflow(slow.overflow);
    broker.subscribe_with(options, move |_| thread::sleep(slow.sleep)).expect("a subscription");
    let (started, mut attempted, mut rejected) = (Instant::now(), 0, 0);
    while started.elapsed() < duration {
        if let Some(per_second) = slow.offered {
            let due = started + Duration::from_secs(attempted) / per_second;
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        let rare = attempted % slow.one_in == slow.one_in - 1;
        let event_type = if rare { "slow.entry.rare" } else { "slow.entry.common" };
        attempted += 1;
        rejected += u64::from(broker.publish(event(event_type, &attempted)).is_err());
    }
    let elapsed = started.elapsed().as_secs_f64();
    let least = handled.iter().map(|count| count.load(Ordering::Relaxed)).min().unwrap_or(0);
    let stats = broker.stats();
    broker.stop(Duration::ZERO);
    let (accepted, dropped) = (stats.accepted, stats.deliveries.dropped);
    Run { attempted, accepted, rejected, dropped, rate: least as f64 / elapsed }
}

pub(crate) fn one(short: bool, figures: &mut Figures) {
    let duration = Duration::from_millis(if short { 600 } else { 30_000 });
    let slow = |overflow, one_in, offered| Slow { overflow, one_in, sleep: Duration::from_millis(100), offered };
    let block = Overflow::Block;
    let cases = [
        ("DropOldest, sleeps on every event", slow(Overflow::DropOldest, 1, None)),
        // `Block` bounds how long a full queue blocks a publisher: 1 ms is a fraction of the time between two of the
        // slow one's events, so the others keep their rate. An event without a place by then is rejected and counted.
        ("Block for 1 ms, sleeps on 1 event in 1,000", slow(block(Duration::from_millis(1)), 1_000, None)),
        // Five concurrent calls of 100 ms handle 50 events a second; 1 in 1,000 of 40,000/s is 40.
        ("Block for 60 s, sleeps on 1 event in 1,000 of 40,000/s", slow(block(PATIENT), 1_000, Some(40_000))),
    ];
    for (name, case) in cases {
        // The reference rate: the same without the sleep, before and after.
        let quick = Slow { sleep: Duration::ZERO, ..case };
        let before = hundred(quick, duration / 3).rate;
        let run = hundred(case, duration);
        let after = hundred(quick, duration / 3).rate;
        let share = run.rate / ((before + after) / 2.0);
        figures.note(name, format!("{:.0} events/s of {before:.0} and {after:.0}", run.rate));
        figures.compared(
            "  share of the rate that the others keep",
            format!("{share:.2}"),
            "at least 0.80",
            share >= 0.8,
        );
        figures.exactly("  accepted + rejected", run.accepted + run.rejected, run.attempted);
        figures.note("  dropped by the slow one, refused", format!("{}, {}", run.dropped, run.rejected));
    }
    // With a block time of 60 s and no limit on the offered rate, the slow one sets the pace: 50 of its events a
    // second, each with 999 others. Printed without a bound.
    let run = hundred(slow(block(PATIENT), 1_000, None), duration);
    figures.note("Block for 60 s, flat out: events/s", format!("{:.0}", run.rate));
    figures.exactly("  accepted + rejected", run.accepted + run.rejected, run.attempted);
    let run = hundred(slow(Overflow::Reject, 1, None), duration);
    figures.note("Reject: accepted, rejected", format!("{}, {}", run.accepted, run.rejected));
    figures.exactly("  accepted + rejected", run.accepted + run.rejected, run.attempted);
}

pub(crate) fn many(short: bool, figures: &mut Figures) {
    let duration = Duration::from_secs(if short { 3 } else { 30 });
    let broker = Broker::builder().start().expect("a broker");
    for number in 0..20 {
        let options = SubscribeOptions::new(format!("many.slow.{number}")).overflow(Overflow::DropOldest);
        broker.subscribe_with(options, |_| thread::sleep(Duration::from_secs(1))).expect("a subscription");
    }
    let (latencies, start) = (Arc::new(Mutex::new(Vec::new())), Instant::now());
    for _ in 0..HEALTHY {
        let samples = Arc::clone(&latencies);
        broker
            .subscribe("many.healthy.event", move |delivery| {
                let published: u64 = delivery.event().payload_as().expect("a time");
                samples.lock().expect("the samples").push(start.elapsed().as_nanos() as u64 - published);
            })
            .expect("a subscription");
    }
    let (mut refused, mut published) = (0, 0);
    at_rate(200, duration, |number| {
        published += 1;
        let slow = event(&format!("many.slow.{}", number % 20), &number);
        refused += u64::from(broker.publish(slow).is_err());
        let now = start.elapsed().as_nanos() as u64;
        refused += u64::from(broker.publish(event("many.healthy.event", &now)).is_err());
    });
    let deadline = Instant::now() + PATIENT;
    while latencies.lock().expect("the samples").len() < HEALTHY * published && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    let mut samples = latencies.lock().expect("the samples");
    figures.note("workers at the end", broker.stats().workers);
    figures.exactly("healthy deliveries", samples.len(), HEALTHY * published);
    figures.exactly("refused", refused, 0);
    let (p50, p99) = (quantile(&mut samples, 0.5), quantile(&mut samples, 0.99));
    figures.note("p50 of the healthy", format!("{p50:?}"));
    figures.check("p99 of the healthy", format!("{p99:?}"), "at most 50 ms", p99 <= Duration::from_millis(50));
    drop(samples);
    broker.stop(Duration::ZERO);
}
