//! The settings of a broker and of a subscription as plain data: defaults, units, bounds and checks.

mod retry;

use std::time::{Duration, SystemTime};

use crate::event::{Event, EventId, Invalid, Pattern, Problem};
pub use retry::RetryPolicy;

/// Whether `Broker::publish` waits for the handlers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Returns as soon as the event is accepted. The default.
    /// Handlers run on worker threads.
    #[default]
    Async,
    /// Returns when every delivery has ended, as [`publish_sync`](crate::Broker::publish_sync) does.
    Sync,
}

/// The policy for a new event when the queue of a subscription is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// Refuses the publish for all subscriptions, and returns the event. The default.
    #[default]
    Reject,
    /// Blocks the publisher for at most this long, then refuses the publish.
    /// Inside a handler, and in [`publish_async`](crate::Broker::publish_async), it acts as `Reject`.
    ///
    /// A blocked publisher publishes nothing to other subscriptions either, so it falls to the pace of its slowest
    /// subscriber. The others keep their rate if the time is shorter than that subscription takes for an event.
    Block(Duration),
    /// Drops the oldest waiting event of the subscription, and counts it as dropped.
    /// Waiting means: for a worker, or behind an earlier event of its key. At `max_waiting` the new event is dropped.
    DropOldest,
    /// Does not deliver the new event to this subscription, and counts it as dropped.
    DropNewest,
}

/// The instances whose events a subscription receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Events published on this instance, without going through a back end.
    Local,
    /// One member of the group handles each event. The default.
    /// Without a back end the broker is the only member, as with `Local`.
    Group,
    /// Every instance handles each event. Without a back end the same as `Local`.
    Broadcast,
}

/// The first events that a new subscription receives.
///
/// Applies when the back end first sees the name of the subscription. Afterwards the subscription resumes where it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StartPosition {
    /// Events published from then on. The default.
    #[default]
    New,
    /// All events that are still stored.
    Earliest,
    /// Events created at this time or later.
    From(SystemTime),
    /// Events stored after the one with this id, which must be stored.
    After(EventId),
}

/// When a publish through a back end is accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Confirm {
    /// Once the back end has stored the event. The default.
    /// Concurrent publishers share round trips: a batch may wait up to 50 µs for publishers that have just returned.
    #[default]
    Confirmed,
    /// Once the event is in this process's buffer of at most 10,000 events.
    /// It is sent at once, at most 100 ms later unless the back end is down or slow. If the process ends without
    /// [`stop`](crate::Broker::stop), the buffered events are lost. An event that the back end refuses permanently
    /// becomes a dead letter with the reason [`MirrorRejected`](crate::dead_letter::DeadReason::MirrorRejected).
    Buffered,
}

/// The settings of a broker. Each has a default.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Whether `publish` waits for the handlers. Default [`Mode::Async`].
    pub mode: Mode,
    /// Worker threads shared by all subscriptions. Default 10; 1 to 1,024.
    pub worker_count: usize,
    /// The size to which the worker pool may grow while handlers are slow.
    /// Default 4 × `worker_count`, at most 4,096; from `worker_count` to 4,096.
    pub max_workers: Option<usize>,
    /// Queue capacity per subscription, in events. Default 1,000; 1 to 16,777,216.
    /// A queue allocates 16 bytes per event of its capacity when its first event arrives.
    pub buffer_size: usize,
    /// The policy for a full queue. Default [`Overflow::Reject`].
    /// A subscription may set its own.
    pub overflow: Overflow,
    /// Waiting retries, and events parked behind them, per subscription.
    /// Default 10,000; 1 to 16,777,216. At the bound the subscription counts as full.
    pub max_waiting: usize,
    /// How failed deliveries are retried.
    /// Default: 3 retries after 1 s, 2 s, 4 s, ± 10 %.
    pub retry_policy: RetryPolicy,
    /// Completed and failed events kept in the store.
    /// Default 10,000; 1 to 100,000,000. From 4,096 on, the store may hold up to 64 fewer, and another 32 fewer per
    /// publishing thread.
    pub max_events: usize,
    /// Accepted events that are neither completed nor failed.
    /// At the bound a publish is refused. Default 100,000; 1 to 100,000,000. Publishes already running at the bound may
    /// exceed it by one event each.
    pub max_in_flight: usize,
    /// The age at which completed and failed events are removed.
    /// Default 24 h; at least 1 ms. It counts from the event's creation.
    pub max_age: Duration,
    /// Time between two clean-ups of the store. Default 5 min; at least 1 ms.
    pub cleanup_interval: Duration,
    /// Dead letters kept by this process. Default 10,000; 1 to 16,777,216.
    /// Beyond it letters are evicted and counted.
    pub max_dead_letters: usize,
    /// The largest payload, in bytes. Default 1 MiB; 4 bytes to 1 GiB.
    pub max_payload_bytes: usize,
    /// How long `publish_sync` waits for the deliveries. Default 30 s.
    /// Also how long a publish waits for the answer of a back end.
    pub sync_timeout: Duration,
    /// A handler that runs longer is reported as stuck. Default 5 min; at least 1 ms.
    /// Its lease, if the delivery has one, is no longer extended.
    pub max_handler_time: Duration,
    /// When a publish is accepted.
    /// Default [`Confirm::Confirmed`]. Ignored without a back end.
    pub confirm: Confirm,
    /// Counts and times events by source and type. Default true.
    /// For [`Broker::metrics`](crate::Broker::metrics). Costs a few nanoseconds per event.
    pub metrics: bool,
    /// The name of this instance: 1 to 255 bytes.
    /// Default: the name of the host. If the host has none, `resolvespec-instance`. With a back end, if another live
    /// process has claimed the default, the first free name of `NAME-2`, `NAME-3`, and so on.
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
    /// The size to which the worker pool may grow, default applied.
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

/// The settings of one subscription: its pattern, and deviations from defaults.
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
    /// Subscribes to `pattern` with defaults.
    /// `subscribe_with` reports a malformed pattern.
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

    /// Names the subscription: 1 to 255 bytes, unique in the broker.
    /// The name appears in statistics and dead letters, and identifies the subscription at a back end. Default: the
    /// subscription's id, or its pattern if a back end keeps the deliveries.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The instances whose events it receives.
    /// Default [`Scope::Group`]; with [`Mode::Sync`] [`Scope::Local`].
    pub fn scope(mut self, scope: Scope) -> Self {
        self.scope = Some(scope);
        self
    }

    /// How many calls of the handler may run at once: 1 to 4,096.
    /// Default: half of `worker_count`, at least 1.
    pub fn concurrency(mut self, calls: usize) -> Self {
        self.concurrency = Some(calls);
        self
    }

    /// Runs the handler on worker threads of its own: 1 to 1,024.
    /// They replace the shared workers, and their number becomes the concurrency.
    pub fn dedicated(mut self, threads: usize) -> Self {
        self.dedicated = true;
        self.concurrency = Some(threads);
        self
    }

    /// The queue capacity in events: 1 to 16,777,216.
    /// Default: the broker's `buffer_size`.
    pub fn queue_capacity(mut self, events: usize) -> Self {
        self.queue_capacity = Some(events);
        self
    }

    /// Bounds the waiting retries and the events parked behind them: 1 to 16,777,216.
    /// Default: the broker's `max_waiting`. Retries that wait at a back end do not count. At the bound the subscription
    /// counts as full for new events; no waiting delivery is dropped.
    pub fn max_waiting(mut self, deliveries: usize) -> Self {
        self.max_waiting = Some(deliveries);
        self
    }

    /// The policy for a full queue. Default: the broker's `overflow`.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = Some(overflow);
        self
    }

    /// Keeps publish order for the whole subscription, not only per key.
    /// One call runs at a time, and all later events wait behind a waiting retry.
    pub fn ordered(mut self) -> Self {
        self.ordered = true;
        self
    }

    /// Requires the publish order of a key across instances.
    /// Subscribing fails if the back end cannot keep it. SQL can; Redis and NATS can if their setting `partitions` is
    /// at least 1. Without this option the order of a key may hold within an instance only.
    pub fn ordered_across_instances(mut self) -> Self {
        self.ordered_across_instances = true;
        self
    }

    /// How failed deliveries are retried. Default: the broker's `retry_policy`.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry_policy = Some(policy);
        self
    }

    /// The run time after which `delivery.cancelled()` returns true: at least 1 ms.
    /// A thread cannot be stopped from outside, so the handler has to check it. Default: none.
    pub fn handler_deadline(mut self, after: Duration) -> Self {
        self.handler_deadline = Some(after);
        self
    }

    /// The first events that it receives. Default [`StartPosition::New`].
    /// Any other position needs a back end that offers start positions.
    pub fn start(mut self, position: StartPosition) -> Self {
        self.start = position;
        self
    }

    /// Keeps a [broadcast](Scope::Broadcast) subscription when its process ends.
    /// The next subscription of this name, on an instance of the same name, resumes where this one was, unless it comes
    /// later than the back end's `idle_expiry`. Use it with a configured `instance_id`. Needs a back end that offers
    /// it. A [group](Scope::Group) keeps its subscriptions without this option.
    pub fn durable(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Replaces the pattern under which the back end knows the subscription.
    /// The new pattern applies to all members. Existing deliveries stay, and no earlier events are added. Without this
    /// option another pattern is an error that shows both.
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
