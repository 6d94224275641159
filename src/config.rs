//! The settings of a broker and of a subscription as plain data: defaults, units, bounds, checks. Builds nothing live.

mod retry;

use std::time::{Duration, SystemTime};

use crate::event::{Event, EventId, Invalid, Pattern, Problem};
pub use retry::RetryPolicy;

/// What `Broker::publish` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// It returns as soon as the event is accepted; handlers run on worker threads. The default.
    #[default]
    Async,
    /// It returns when every delivery is terminal, as [`publish_sync`](crate::Broker::publish_sync) does.
    Sync,
}

/// What happens to an event when the queue of a subscription is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The publish is refused for all subscriptions, and the event comes back. The default.
    #[default]
    Reject,
    /// The publisher waits for room, at most this long, then the publish is refused. Inside a handler, and in
    /// [`publish_async`](crate::Broker::publish_async), it acts as `Reject`.
    ///
    /// While it waits it publishes nothing, for any subscription: a patient publisher is held to the pace of its slowest
    /// subscriber. With a patience below the time between two events of that subscription, the others keep their rate.
    Block(Duration),
    /// The oldest event that waits, be it for a worker or behind its key, gives its place to the new one, and is counted as
    /// dropped.
    DropOldest,
    /// This subscription does not get the new event, which is counted as dropped.
    DropNewest,
}

/// Which instances' events a subscription receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Events published on this instance, with no back end in the path.
    Local,
    /// Each event is handled by one member of the group. Without a back end that carries groups, the only member is
    /// here, so it is the same as `Local`. The default.
    Group,
    /// Every instance handles each event. Without such a back end it is the same as `Local`.
    Broadcast,
}

/// Which events a subscription receives first. Counts when the back end sees its name for the first time; after that the
/// subscription goes on where it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StartPosition {
    /// Those published from then on. The default.
    #[default]
    New,
    /// All that are still held.
    Earliest,
    /// Those created at this time or later.
    From(SystemTime),
    /// Those stored after the event with this id, which must be held.
    After(EventId),
}

/// When a back end's event is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Confirm {
    /// When the back end holds it. Concurrent publishers share round trips: one may wait up to 50 µs for others that are on their way. The default.
    #[default]
    Confirmed,
    /// When it stands in this process's buffer of at most 10,000 events, from where it goes to the back end at once: at most
    /// 100 ms later, unless that is down or slow. An end of the process without [`stop`](crate::Broker::stop) loses what is in the
    /// buffer. What the back end refuses for good becomes a dead letter with the reason
    /// [`MirrorRejected`](crate::dead_letter::DeadReason::MirrorRejected).
    Buffered,
}

/// The settings of a broker. Every one has a default, so `Config::default()` is a working broker.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// What `publish` does. Default [`Mode::Async`].
    pub mode: Mode,
    /// Threads that run handlers, shared by all subscriptions. Default 10; 1 to 1,024.
    pub worker_count: usize,
    /// To how many threads the pool may grow while handlers are slow. Default 4 × `worker_count`; at most 4,096.
    pub max_workers: Option<usize>,
    /// Queue capacity of each subscription, in events. Default 1,000; 1 to 16,777,216. A queue takes 16 bytes per event of its
    /// capacity when the first event comes.
    pub buffer_size: usize,
    /// What happens when the queue of a subscription is full that does not say so itself. Default [`Overflow::Reject`].
    pub overflow: Overflow,
    /// Retries and events parked behind them, per subscription. Default 10,000; 1 to 16,777,216.
    pub max_waiting: usize,
    /// How failed deliveries are retried. Default: 3 retries after 1 s, 2 s, 4 s, ± 10 %.
    pub retry_policy: RetryPolicy,
    /// Events that are completed or failed and still held in the store. Default 10,000; 1 to 100,000,000. From 4,096 on up to 64
    /// fewer are held, and 32 fewer for each thread that publishes.
    pub max_events: usize,
    /// Events that are accepted and not yet completed or failed; beyond it a publish is refused. Publishers that are under
    /// way when it is reached may add one each. Default 100,000; 1 to 100,000,000.
    pub max_in_flight: usize,
    /// Age, since creation, at which completed and failed events are cleaned up. Default 24 h; at least 1 ms.
    pub max_age: Duration,
    /// How often the store is cleaned up. Default 5 min; at least 1 ms.
    pub cleanup_interval: Duration,
    /// Dead letters held; what falls out is counted. Default 10,000; 1 to 16,777,216.
    pub max_dead_letters: usize,
    /// The largest payload, in bytes. Default 1 MiB; 4 bytes to 1 GiB.
    pub max_payload_bytes: usize,
    /// How long `publish_sync` waits for the deliveries. Default 30 s.
    pub sync_timeout: Duration,
    /// A handler that runs longer is reported as stuck. Default 5 min; at least 1 ms.
    pub max_handler_time: Duration,
    /// When an event is accepted. Default [`Confirm::Confirmed`]. Without a back end it means nothing.
    pub confirm: Confirm,
    /// Whether events are counted and timed by source and type, for [`Broker::metrics`](crate::Broker::metrics). Default true; it costs a
    /// few nanoseconds per event.
    pub metrics: bool,
    /// The name of this instance: 1 to 255 bytes. Default: the host's name, else `resolvespec-instance`; with a back end, if
    /// another live process has that name, the first of `NAME-2`, `NAME-3`, … that is free.
    pub instance_id: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: Mode::Async,
            worker_count: 10,
            max_workers: None,
            buffer_size: 1_000,
            overflow: Overflow::Reject,
            max_waiting: 10_000,
            retry_policy: RetryPolicy::default(),
            max_events: 10_000,
            max_in_flight: 100_000,
            max_age: Duration::from_secs(24 * 3600),
            cleanup_interval: Duration::from_secs(5 * 60),
            max_dead_letters: 10_000,
            max_payload_bytes: 1 << 20,
            sync_timeout: Duration::from_secs(30),
            max_handler_time: Duration::from_secs(5 * 60),
            confirm: Confirm::default(),
            metrics: true,
            instance_id: None,
        }
    }
}

impl Config {
    /// To how many worker threads the pool may grow.
    pub fn effective_max_workers(&self) -> usize {
        self.max_workers.unwrap_or(self.worker_count.saturating_mul(4).min(4_096))
    }

    pub(crate) fn check(&self) -> Result<(), Invalid> {
        let longest_id = Event::MAX_TEXT_BYTES;
        within("worker_count", self.worker_count, 1, 1_024)?;
        within("max_workers", self.effective_max_workers(), self.worker_count, 4_096)?;
        within("buffer_size", self.buffer_size, 1, 1 << 24)?;
        within("max_waiting", self.max_waiting, 1, 1 << 24)?;
        within("max_events", self.max_events, 1, 100_000_000)?;
        within("max_in_flight", self.max_in_flight, 1, 100_000_000)?;
        within("max_dead_letters", self.max_dead_letters, 1, 1 << 24)?;
        within("max_payload_bytes", self.max_payload_bytes, 4, 1 << 30)?;
        at_least_a_millisecond("max_age", self.max_age)?;
        at_least_a_millisecond("cleanup_interval", self.cleanup_interval)?;
        at_least_a_millisecond("max_handler_time", self.max_handler_time)?;
        if let Some(id) = &self.instance_id {
            within("instance_id", id.len(), 1, longest_id)?;
        }
        self.retry_policy.check()
    }
}

/// How one subscription receives: its pattern, and whatever differs from the broker's defaults.
///
/// ```
/// use eventbroker::{Overflow, SubscribeOptions};
/// use std::time::Duration;
///
/// let options = SubscribeOptions::new("shop.orders.*")
///     .name("mailer")
///     .concurrency(4)
///     .overflow(Overflow::Block(Duration::from_millis(50)));
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct SubscribeOptions {
    pub(crate) pattern: Result<Pattern, Invalid>,
    pub(crate) name: Option<String>,
    pub(crate) scope: Option<Scope>,
    pub(crate) concurrency: Option<usize>,
    pub(crate) dedicated: bool,
    pub(crate) queue_capacity: Option<usize>,
    pub(crate) max_waiting: Option<usize>,
    pub(crate) overflow: Option<Overflow>,
    pub(crate) ordered: bool,
    pub(crate) ordered_across_instances: bool,
    pub(crate) retry_policy: Option<RetryPolicy>,
    pub(crate) handler_deadline: Option<Duration>,
    pub(crate) start: StartPosition,
    pub(crate) durable: bool,
    pub(crate) change_pattern: bool,
}

impl SubscribeOptions {
    /// A subscription to `pattern` with every default. A malformed pattern is reported by `subscribe_with`.
    pub fn new(pattern: impl AsRef<str>) -> Self {
        Self {
            pattern: Pattern::parse(pattern.as_ref()),
            name: None,
            scope: None,
            concurrency: None,
            dedicated: false,
            queue_capacity: None,
            max_waiting: None,
            overflow: None,
            ordered: false,
            ordered_across_instances: false,
            retry_policy: None,
            handler_deadline: None,
            start: StartPosition::New,
            durable: false,
            change_pattern: false,
        }
    }

    /// A name for statistics, dead letters and, with a durable back end, the group's member list. 1 to 255 bytes, unique
    /// in the broker. Default: the subscription's id; the pattern, if a back end keeps the deliveries.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Which instances' events it receives. Default [`Scope::Group`], in mode sync [`Scope::Local`].
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// How many calls of the handler may run at once. Default: half of `worker_count`, at least 1; 1 to 4,096.
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = Some(calls);
        self
    }

    /// Gives the subscription `threads` worker threads of its own instead of the shared ones, and that concurrency.
    /// 1 to 1,024.
    pub fn dedicated(mut self, threads: usize) -> Self {
        self.dedicated = true;
        self.concurrency = Some(threads);
        self
    }

    /// Queue capacity, in events. Default: the broker's `buffer_size`; 1 to 16,777,216.
    pub fn queue_capacity(mut self, events: usize) -> Self {
        self.queue_capacity = Some(events);
        self
    }

    /// Retries that wait here, not at a back end, and events parked behind them. Default: the broker's `max_waiting`; 1 to 16,777,216. When it is
    /// reached, the subscription counts as full for new events; nothing that waits is dropped.
    pub fn max_waiting(mut self, deliveries: usize) -> Self {
        self.max_waiting = Some(deliveries);
        self
    }

    /// What happens when the queue is full. Default: the broker's `overflow`.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = Some(overflow);
        self
    }

    /// Keeps publish order for the whole subscription: one call at a time, and whatever is behind a waiting retry waits
    /// too. Without it, order is kept among events of the same key.
    pub fn ordered(mut self) -> Self {
        self.ordered = true;
        self
    }

    /// Requires that the events of a key are handled in publish order whichever instances handle them; subscribing fails if the back end
    /// can't do that. SQL can; Redis and NATS can if their setting `partitions` is at least 1. Without this, the order of a key
    /// may hold within an instance only.
    pub fn ordered_across_instances(mut self) -> Self {
        self.ordered_across_instances = true;
        self
    }

    /// How failed deliveries are retried. Default: the broker's `retry_policy`.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry_policy = Some(policy);
        self
    }

    /// After this long `delivery.cancelled()` turns true for a running call. A thread cannot be stopped from outside: the
    /// handler has to look. Default: none; at least 1 ms.
    pub fn handler_deadline(mut self, after: Duration) -> Self {
        self.handler_deadline = Some(after);
        self
    }

    /// Which events it receives first. Default [`StartPosition::New`]; anything else needs a back end that holds the past.
    pub fn start(mut self, position: StartPosition) -> Self {
        self.start = position;
        self
    }

    /// Keeps a [broadcast](Scope::Broadcast) subscription when its process ends: the next one of the same name on an instance of
    /// the same name goes on where this one was, unless that takes longer than the back end's `idle_expiry`. (A
    /// [group](Scope::Group)'s are always kept.) Needs a configured `instance_id` to be of use, and a back end that offers it.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// If the back end knows the subscription with another pattern, it has this one from now on, for all members. What was delivered
    /// already stays delivered; nothing that is new to it is fetched from the past. Without this, another pattern is an error that
    /// shows both.
    pub fn change_pattern(mut self) -> Self {
        self.change_pattern = true;
        self
    }

    pub(crate) fn check(&self) -> Result<&Pattern, Invalid> {
        let pattern = self.pattern.as_ref().map_err(Clone::clone)?;
        if let Some(name) = &self.name {
            within("name", name.len(), 1, Event::MAX_TEXT_BYTES)?;
        }
        if let Some(calls) = self.concurrency {
            within("concurrency", calls, 1, if self.dedicated { 1_024 } else { 4_096 })?;
        }
        if let Some(events) = self.queue_capacity {
            within("queue_capacity", events, 1, 1 << 24)?;
        }
        if let Some(deliveries) = self.max_waiting {
            within("max_waiting", deliveries, 1, 1 << 24)?;
        }
        if let Some(after) = self.handler_deadline {
            at_least_a_millisecond("handler_deadline", after)?;
        }
        if let Some(policy) = &self.retry_policy {
            policy.check()?;
        }
        Ok(pattern)
    }
}

fn within(field: &'static str, value: usize, min: usize, max: usize) -> Result<(), Invalid> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Invalid::new(field, Problem::OutOfBounds(format!("is {value}, {min} to {max} is allowed"))))
}

fn at_least_a_millisecond(field: &'static str, value: Duration) -> Result<(), Invalid> {
    if value >= Duration::from_millis(1) {
        return Ok(());
    }
    Err(Invalid::new(field, Problem::OutOfBounds(format!("is {value:?}, at least 1ms is required"))))
}
