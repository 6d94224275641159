//! `eventbroker bench`: publishers at full speed, handlers that only read the clock, and the rates measured. The
//! latency histogram is in `bench/latency.rs`.

mod latency;

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::{Broker, Delivery, Event, Overflow, Payload, PublishError, Source, SubscribeOptions};
use serde::Serialize;

use crate::exit::{Exit, Failure};
use crate::{complain, print, signals};
use latency::Latencies;

const EVENT_TYPE: &str = "bench.events.create";
/// How long a publish blocks on a full queue before the publisher checks whether to stop.
const PATIENCE: Duration = Duration::from_millis(50);
/// Interval of the progress line.
const INTERVAL: Duration = Duration::from_millis(50);
/// Deadline for draining the accepted events at the end.
const DRAIN: Duration = Duration::from_secs(30);

/// Options of `bench`.
#[derive(Debug, clap::Args)]
#[command(before_help = "\
Examples:
  eventbroker bench
  eventbroker bench --publishers 4 --workers 2 --seconds 10
  eventbroker bench --subscriptions 10 --payload 1000 --json")]
#[command(after_help = "\
The publishers keep the queues full, so most of the latency from publish to handled is time spent in a queue.")]
pub(crate) struct Options {
    /// Number of publisher threads
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    publishers: u16,
    /// Number of worker threads, which run the handlers
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: u16,
    /// Number of subscriptions, each of which receives every event
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    subscriptions: u16,
    /// Size of the payload in bytes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=1_048_576))]
    payload: u32,
    /// Duration of publishing in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    seconds: u32,
}

/// The results. With `--json` they are printed under these names.
#[derive(Debug, Serialize)]
struct Results {
    publishers: u16,
    workers: u16,
    subscriptions: u16,
    payload_bytes: u32,
    /// From the first publish to the end of the drain.
    seconds: f64,
    events: u64,
    events_per_second: f64,
    deliveries: u64,
    deliveries_per_second: f64,
    /// Latencies from publish to handled.
    p50_micros: f64,
    p90_micros: f64,
    p99_micros: f64,
    p999_micros: f64,
}

/// Runs the benchmark.
pub(crate) fn run(options: &Options, json: bool) -> Result<Exit, Failure> {
    let latencies = Arc::new(Latencies::default());
    let broker = start_broker(options, &latencies)?;
    let payload = Payload::from_serialize(&"x".repeat(options.payload as usize - 2))?;
    let ending = AtomicBool::new(false);
    let started = Instant::now();
    let published: Result<(), Failure> = thread::scope(|scope| {
        let publish = || publish(&broker, &payload, &ending);
        let publishers: Vec<_> = (0..options.publishers).map(|_| scope.spawn(publish)).collect();
        watch(&broker, options, started);
        ending.store(true, Ordering::Relaxed);
        let ends =
            publishers.into_iter().map(|it| it.join().unwrap_or_else(|_| Err(Failure::new("a publisher panicked"))));
        ends.collect()
    });
    published?;
    let stopped = broker.stop(DRAIN);
    let (elapsed, stats) = (started.elapsed().as_secs_f64(), broker.stats());

    let micros = |share| latencies.quantile(share).as_secs_f64() * 1e6;
    let results = Results {
        publishers: options.publishers,
        workers: options.workers,
        subscriptions: options.subscriptions,
        payload_bytes: options.payload,
        seconds: elapsed,
        events: stats.completed,
        events_per_second: stats.completed as f64 / elapsed,
        deliveries: latencies.total(),
        deliveries_per_second: latencies.total() as f64 / elapsed,
        p50_micros: micros(0.5),
        p90_micros: micros(0.9),
        p99_micros: micros(0.99),
        p999_micros: micros(0.999),
    };
    let text = if json { format!("{}\n", serde_json::json!(results)) } else { results.text() };
    print(text.as_bytes())?;
    if let Some(signal) = signals::received() {
        return Ok(Exit::Signal(signal));
    }
    if !stopped.is_clean() {
        complain(&format!("eventbroker: {} events were not handled within {DRAIN:?}", stopped.abandoned.len()));
        return Ok(Exit::TimedOut);
    }
    let expected = stats.accepted * u64::from(options.subscriptions);
    if latencies.total() != expected {
        let handled = latencies.total();
        return Err(Failure::new(format_args!(
            "{expected} deliveries were accepted, {handled} handled: please report this"
        )));
    }
    Ok(Exit::Ok)
}

fn start_broker(options: &Options, latencies: &Arc<Latencies>) -> Result<Broker, Failure> {
    let broker = Broker::builder().worker_count(options.workers.into()).start()?;
    for _ in 0..options.subscriptions {
        let latencies = Arc::clone(latencies);
        let subscription = SubscribeOptions::new(EVENT_TYPE).overflow(Overflow::Block(PATIENCE));
        broker.subscribe_with(subscription, move |delivery: &Delivery<'_>| {
            // The wall clock may have been set back since: counts as 0.
            let latency = SystemTime::now().duration_since(delivery.event().created_at());
            latencies.count(latency.unwrap_or_default());
        })?;
    }
    Ok(broker)
}

fn publish(broker: &Broker, payload: &Payload, ending: &AtomicBool) -> Result<(), Failure> {
    while !ending.load(Ordering::Relaxed) {
        let event = Event::builder(Source::System, EVENT_TYPE).payload_raw(payload.clone()).build()?;
        match broker.publish(event) {
            // Rejected after `PATIENCE` on a full queue; such an event is not counted.
            Ok(_) | Err(PublishError::Full { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits until the time is over or a signal requests a stop. Shows the progress if standard error is a terminal.
fn watch(broker: &Broker, options: &Options, started: Instant) {
    let whole = Duration::from_secs(options.seconds.into());
    let is_shown = io::stderr().is_terminal();
    while started.elapsed() < whole && !signals::stop_requested() {
        thread::sleep(INTERVAL.min(whole.saturating_sub(started.elapsed())));
        if is_shown {
            let share = (started.elapsed().as_secs_f64() / whole.as_secs_f64()).min(1.0);
            let bar = "#".repeat((share * 30.0) as usize);
            let rate = broker.stats().completed as f64 / started.elapsed().as_secs_f64();
            show(&format!("\r\x1b[K[{bar:<30}] {:3.0} %  {rate:.0} events/s", share * 100.0));
        }
    }
    if is_shown {
        show("\r\x1b[K");
    }
}

/// Writes to standard error. A write error is ignored: it only concerns the progress line.
fn show(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

impl Results {
    fn text(&self) -> String {
        let Self { events, seconds, events_per_second, deliveries, deliveries_per_second, .. } = self;
        let mut text = format!("events      {events:>12} in {seconds:.2} s  {events_per_second:>12.0}/s\n");
        text.push_str(&format!("deliveries  {deliveries:>12} in {seconds:.2} s  {deliveries_per_second:>12.0}/s\n"));
        text.push_str("publish -> handled\n");
        let quantiles =
            [("p50", self.p50_micros), ("p90", self.p90_micros), ("p99", self.p99_micros), ("p99.9", self.p999_micros)];
        for (name, micros) in quantiles {
            text.push_str(&format!("  {name:<9} {micros:>12.1} us\n"));
        }
        text
    }
}
