//! Metrics of a broker, for monitoring.
//!
//! [`Broker::metrics`](crate::Broker::metrics) takes a snapshot of all counts: values to read, text for Prometheus
//! (feature `prometheus`), or series to push through the crate `metrics` (feature `metrics`).
//!
//! | series | labels | meaning |
//! |---|---|---|
//! | `eventbroker_events_published_total` | `source`, `type` | events that were accepted |
//! | `eventbroker_events_processed_total` | `source`, `type`, `status` | events that became `completed` or `failed` |
//! | `eventbroker_event_processing_duration_seconds` | `source`, `type` | first attempt to last verdict of an event |
//! | `eventbroker_event_duration_seconds` | | from the creation of an event to its last verdict |
//! | `eventbroker_queue_size` | | deliveries in the queues of all subscriptions |
//! | `eventbroker_deliveries_waiting` | | waiting retries, and deliveries parked behind them |
//! | `eventbroker_workers`, `eventbroker_workers_active` | | worker threads, and those inside a handler |
//! | `eventbroker_handlers_stuck` | | handlers that run longer than `max_handler_time` |
//! | `eventbroker_subscriptions` | | subscriptions |
//! | `eventbroker_events_rejected_total`, `eventbroker_events_duplicate_total` | | publishes refused; of a known id |
//! | `eventbroker_events_in_flight` | | events that are accepted and not settled |
//! | `eventbroker_oldest_event_age_seconds` | | the age of the oldest event in flight; 0 without one |
//! | `eventbroker_deliveries_total` | `verdict` | settled: `done`, `skipped`, `dead`, `dropped`, `cancelled` |
//! | `eventbroker_attempts_total`, `eventbroker_retries_total` | | calls of handlers, and those that were retries |
//! | `eventbroker_dead_letters` | | dead letters kept in this process |
//! | `eventbroker_drops_total` | `reason` | `overflow`, `stream_full`, `dead_letters_full`, `notice_refused` |
//! | `eventbroker_store_events`, `eventbroker_store_evicted_total` | | events in the store, and those that left it |
//! | `eventbroker_mirror_backlog`, `eventbroker_mirrored_total` | | events the back end has not, and has, confirmed |
//! | `eventbroker_leases`, `eventbroker_leases_lost_total` | | leases that are held, and verdicts on lost leases |
//! | `eventbroker_backend_errors_total` | | calls of the back end that failed |
//!
//! The processing duration includes the waits between retries. Drops are deliveries (`overflow`), events
//! (`stream_full`), dead letters, and notices of dead letters. The last five series exist only with a back end.
//!
//! The first 100 pairs of a source and a type are counted separately, the others together under the source and type
//! `_other`, so there are fewer than 2,000 series. The buckets are those of the ResolveSpec event broker, 1 ms to 5 s.
//! Without counting by type ([`Config::metrics`](crate::Config::metrics)) the first four series are missing.

#[cfg(feature = "metrics")]
mod facade;
#[cfg(feature = "prometheus")]
mod prometheus;

use std::time::Duration;

use crate::outcome::{Stats, StoreStats};

pub use crate::telemetry::{Histogram, TypeMetrics};
#[cfg(feature = "metrics")]
pub use facade::Push;

/// The source and the type of all pairs that are not counted separately.
pub const OTHER: &str = "_other";

/// A snapshot of all counts of a broker. See the [module's page](self).
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
    /// The events in the store, by status.
    pub store: StoreStats,
    /// The counts by source and type, in the order in which the pairs came.
    ///
    /// The last entry counts all pairs that are not counted separately, if there are any.
    pub types: Vec<TypeMetrics>,
    /// From the creation of each event to its last verdict.
    pub whole: Histogram,
    /// The age of the oldest event in flight.
    pub oldest_open: Option<Duration>,
}

/// A metric with its series, for both formats.
#[cfg(any(feature = "prometheus", feature = "metrics"))]
struct Figure {
    /// Without the prefix `eventbroker_` and the suffix `_total`.
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
    /// All metrics, grouped by kind.
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
                "Events that became completed or failed",
                Kind::Counter,
                self.types.iter().flat_map(processed),
            ),
            Figure::new(
                "event_processing_duration_seconds",
                "Time from the first attempt of an event to its last verdict",
                Kind::Histogram,
                processing,
            ),
            Figure::new(
                "event_duration_seconds",
                "Time from the creation of an event to its last verdict",
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
                "Waiting retries, and deliveries parked behind them",
                of_all(|it| it.waiting),
            ),
            Figure::level("workers", "Worker threads", stats.workers as u64),
            Figure::level("workers_active", "Worker threads inside a handler", stats.workers_busy as u64),
            Figure::level(
                "handlers_stuck",
                "Handlers that run longer than max_handler_time",
                stats.stuck_handlers as u64,
            ),
            Figure::level("subscriptions", "Subscriptions", stats.subscriptions.len() as u64),
            Figure::level("events_in_flight", "Events that are accepted and not settled", stats.in_flight),
            Figure::new(
                "oldest_event_age_seconds",
                "Age of the oldest event in flight",
                Kind::Gauge,
                [(Vec::new(), Value::Level(oldest))],
            ),
            Figure::level("dead_letters", "Dead letters kept in this process", stats.dead_letters),
            Figure::level("store_events", "Events in the store of this process", self.store.events),
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
            Figure::counts("deliveries", "Settled deliveries, by verdict", "verdict", verdicts),
            Figure::count("attempts", "Calls of handlers", stats.attempts),
            Figure::count("retries", "Calls of handlers that were retries", stats.retries),
            Figure::counts("drops", "Deliveries, stream events, dead letters and notices dropped", "reason", drops),
            Figure::count(
                "store_evicted",
                "Events that have left the store of this process",
                stats.accepted.saturating_sub(self.store.events),
            ),
        ]
    }

    fn back_end(&self) -> Vec<Figure> {
        let Some(bridge) = &self.stats.bridge else { return Vec::new() };
        vec![
            Figure::level("mirror_backlog", "Events that the back end has not confirmed", bridge.mirror_backlog),
            Figure::count("mirrored", "Events that the back end has confirmed", bridge.mirrored),
            Figure::level("leases", "Leases from the back end that are held", bridge.leases),
            Figure::count("leases_lost", "Verdicts on leases that were lost", bridge.leases_lost),
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
