//! What a broker counted, for monitoring: a snapshot of everything, as values, as text for Prometheus (feature `prometheus`), or
//! pushed through the crate `metrics` (feature `metrics`).
//!
//! | series | labels | what |
//! |---|---|---|
//! | `eventbroker_events_published_total` | `source`, `type` | events that were accepted |
//! | `eventbroker_events_processed_total` | `source`, `type`, `status` | events that became `completed` or `failed` |
//! | `eventbroker_event_processing_duration_seconds` | `source`, `type` | from the first attempt of an event to its last verdict, waits between retries included |
//! | `eventbroker_event_duration_seconds` | | from the making of an event to its last verdict |
//! | `eventbroker_queue_size` | | deliveries in the queues of all subscriptions |
//! | `eventbroker_deliveries_waiting` | | retries that wait, and what is parked behind them |
//! | `eventbroker_workers`, `eventbroker_workers_active` | | threads, and those inside of a handler |
//! | `eventbroker_handlers_stuck` | | handlers that run longer than `max_handler_time` |
//! | `eventbroker_subscriptions` | | subscriptions |
//! | `eventbroker_events_rejected_total`, `eventbroker_events_duplicate_total` | | publishes that were refused, or of a known id |
//! | `eventbroker_events_in_flight` | | events that are accepted and not done |
//! | `eventbroker_oldest_event_age_seconds` | | the age of the oldest of them; 0 if there is none |
//! | `eventbroker_deliveries_total` | `verdict` | deliveries that ended: `done`, `skipped`, `dead`, `dropped`, `cancelled` |
//! | `eventbroker_attempts_total`, `eventbroker_retries_total` | | calls of handlers, and those that were retries |
//! | `eventbroker_dead_letters` | | dead letters that are held |
//! | `eventbroker_drops_total` | `reason` | what was given up: `overflow` (deliveries), `stream_full`, `dead_letters_full`, `notice_refused` |
//! | `eventbroker_store_events`, `eventbroker_store_evicted_total` | | events that the store holds, and that have left it |
//! | `eventbroker_mirror_backlog`, `eventbroker_mirrored_total` | | events that wait for the back end, and that it has confirmed; only with one |
//! | `eventbroker_leases`, `eventbroker_leases_lost_total`, `eventbroker_backend_errors_total` | | deliveries of the back end that are held, that came back too late, and calls that failed |
//!
//! The first 100 pairs of a source and a type are counted by themselves, the others together: source and type are `_other` there. So
//! there are fewer than 2,000 series, whatever is published. The buckets are those of the ResolveSpec event broker, 1 ms to 5 s.
//! Counting by type can be switched off ([`Config::metrics`](crate::Config::metrics)): then the first four series are missing.

#[cfg(feature = "metrics")]
mod facade;
#[cfg(feature = "prometheus")]
mod prometheus;

use std::time::Duration;

use crate::outcome::{Stats, StoreStats};

pub use crate::telemetry::{Histogram, TypeMetrics};
#[cfg(feature = "metrics")]
pub use facade::Push;

/// What stands for the source and the type of all that is not counted by itself.
pub const OTHER: &str = "_other";

/// A snapshot of everything that a broker counted. See the [module's page](self).
///
/// ```
/// use eventbroker::{Broker, Event, Source};
///
/// let broker = Broker::builder().start()?;
/// broker.publish(Event::builder(Source::System, "shop.orders.create").build()?)?;
/// let metrics = broker.metrics();
/// assert_eq!((metrics.types.len(), metrics.types[0].published), (1, 1));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Metrics {
    /// The counts of the broker.
    pub stats: Stats,
    /// What its store holds.
    pub store: StoreStats,
    /// The counts by source and type, in the order in which they came; the others together at the end, if there are any.
    pub types: Vec<TypeMetrics>,
    /// From the making of each event to its last verdict.
    pub whole: Histogram,
    /// The age of the oldest event that is not done.
    pub oldest_open: Option<Duration>,
}

/// One figure, however it is shown.
#[cfg(any(feature = "prometheus", feature = "metrics"))]
struct Figure {
    /// Without the prefix `eventbroker_`, and without the suffix of a counter.
    name: &'static str,
    help: &'static str,
    kind: Kind,
    /// The labels of each series, and its value.
    values: Vec<(Labels, Value)>,
}

/// The labels of a series, with their values.
#[cfg(any(feature = "prometheus", feature = "metrics"))]
type Labels = Vec<(&'static str, String)>;

#[cfg(any(feature = "prometheus", feature = "metrics"))]
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

#[cfg(any(feature = "prometheus", feature = "metrics"))]
enum Value {
    Count(u64),
    Level(f64),
    Times(Histogram),
}

#[cfg(any(feature = "prometheus", feature = "metrics"))]
impl Metrics {
    /// Everything that is shown, in the order of the module's page.
    fn figures(&self) -> Vec<Figure> {
        let mut figures = self.by_type();
        figures.extend(self.levels());
        figures.extend(self.totals());
        figures.extend(self.back_end());
        figures
    }

    fn by_type(&self) -> Vec<Figure> {
        if self.types.is_empty() {
            return Vec::new();
        }
        let labels = |it: &TypeMetrics| {
            let (source, event_type) = match &it.of {
                Some((source, event_type)) => (source.as_str(), event_type.as_str()),
                None => (OTHER, OTHER),
            };
            vec![("source", source.to_owned()), ("type", event_type.to_owned())]
        };
        let processed = |it: &TypeMetrics| {
            [("completed", it.completed), ("failed", it.failed)].map(|(status, count)| {
                let mut labels = labels(it);
                labels.push(("status", status.to_owned()));
                (labels, Value::Count(count))
            })
        };
        let published = self.types.iter().map(|it| (labels(it), Value::Count(it.published)));
        let processing = self.types.iter().map(|it| (labels(it), Value::Times(it.processing)));
        vec![
            Figure::new("events_published", "Events that were accepted", Kind::Counter, published),
            Figure::new(
                "events_processed",
                "Events that are done",
                Kind::Counter,
                self.types.iter().flat_map(processed),
            ),
            Figure::new(
                "event_processing_duration_seconds",
                "From the first attempt of an event to its last verdict",
                Kind::Histogram,
                processing,
            ),
            Figure::new(
                "event_duration_seconds",
                "From the making of an event to its last verdict",
                Kind::Histogram,
                [(Vec::new(), Value::Times(self.whole))],
            ),
        ]
    }

    fn levels(&self) -> Vec<Figure> {
        let stats = &self.stats;
        let of_all = |count: fn(&crate::outcome::SubscriptionStats) -> u64| stats.subscriptions.iter().map(count).sum();
        let oldest = self.oldest_open.unwrap_or_default().as_secs_f64();
        vec![
            Figure::level("queue_size", "Deliveries in the queues", of_all(|it| it.queued)),
            Figure::level(
                "deliveries_waiting",
                "Retries that wait, and what is parked behind them",
                of_all(|it| it.waiting),
            ),
            Figure::level("workers", "Worker threads", stats.workers as u64),
            Figure::level("workers_active", "Worker threads inside of a handler", stats.workers_busy as u64),
            Figure::level(
                "handlers_stuck",
                "Handlers that run longer than max_handler_time",
                stats.stuck_handlers as u64,
            ),
            Figure::level("subscriptions", "Subscriptions", stats.subscriptions.len() as u64),
            Figure::level("events_in_flight", "Events that are accepted and not done", stats.in_flight),
            Figure::new(
                "oldest_event_age_seconds",
                "The age of the oldest event that is not done",
                Kind::Gauge,
                [(Vec::new(), Value::Level(oldest))],
            ),
            Figure::level("dead_letters", "Dead letters that are held", stats.dead_letters),
            Figure::level("store_events", "Events that the store holds", self.store.events),
        ]
    }

    fn totals(&self) -> Vec<Figure> {
        let stats = &self.stats;
        let ended = &stats.deliveries;
        let verdicts = [
            ("done", ended.done),
            ("skipped", ended.skipped),
            ("dead", ended.dead),
            ("dropped", ended.dropped),
            ("cancelled", ended.cancelled),
        ];
        let drops = [
            ("overflow", ended.dropped),
            ("stream_full", stats.stream_gaps),
            ("dead_letters_full", stats.dead_letters_evicted),
            ("notice_refused", stats.dead_letter_notices_lost),
        ];
        vec![
            Figure::count("events_rejected", "Publishes that were refused", stats.rejected),
            Figure::count("events_duplicate", "Publishes of a known id", stats.duplicates),
            Figure::counts("deliveries", "Deliveries that ended, by verdict", "verdict", verdicts),
            Figure::count("attempts", "Calls of handlers", stats.attempts),
            Figure::count("retries", "Calls of handlers that were retries", stats.retries),
            Figure::counts("drops", "What was given up, by reason", "reason", drops),
            Figure::count(
                "store_evicted",
                "Events that have left the store",
                stats.accepted.saturating_sub(self.store.events),
            ),
        ]
    }

    fn back_end(&self) -> Vec<Figure> {
        let Some(bridge) = &self.stats.bridge else { return Vec::new() };
        vec![
            Figure::level("mirror_backlog", "Events that wait for the back end", bridge.mirror_backlog),
            Figure::count("mirrored", "Events that the back end has confirmed", bridge.mirrored),
            Figure::level("leases", "Deliveries of the back end that are held", bridge.leases),
            Figure::count("leases_lost", "Verdicts that came too late", bridge.leases_lost),
            Figure::count("backend_errors", "Calls of the back end that failed", bridge.errors),
        ]
    }
}

#[cfg(any(feature = "prometheus", feature = "metrics"))]
impl Figure {
    fn new(
        name: &'static str,
        help: &'static str,
        kind: Kind,
        values: impl IntoIterator<Item = (Labels, Value)>,
    ) -> Self {
        Self { name, help, kind, values: values.into_iter().collect() }
    }

    fn level(name: &'static str, help: &'static str, level: u64) -> Self {
        Self::new(name, help, Kind::Gauge, [(Vec::new(), Value::Level(level as f64))])
    }

    fn count(name: &'static str, help: &'static str, count: u64) -> Self {
        Self::new(name, help, Kind::Counter, [(Vec::new(), Value::Count(count))])
    }

    fn counts<const N: usize>(
        name: &'static str,
        help: &'static str,
        label: &'static str,
        counts: [(&'static str, u64); N],
    ) -> Self {
        let values = counts.map(|(value, count)| (vec![(label, value.to_owned())], Value::Count(count)));
        Self::new(name, help, Kind::Counter, values)
    }
}
