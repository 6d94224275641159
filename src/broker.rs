//! The public handles of a broker. They hold no data of their own: the verbs are in `engine`.

mod builder;
pub mod global;
mod lookup;
mod operator;
mod publisher;
#[cfg(feature = "signals")]
mod signals;
mod stream;

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::bridge::Receipt;
use crate::config::{Mode, StartPosition, SubscribeOptions};
use crate::engine::{Engine, Phase, SubscriptionRoute};
use crate::event::{Event, EventType, Invalid, Pattern, Source};
use crate::outcome::{
    Accepted, BackendError, PublishError, Settled, StartError, StopReport, SubscribeError, SubscriptionId, SyncReport,
    UnknownSubscription,
};
use crate::subscription::{Delivery, IntoOutcome};
use crate::telemetry::trace;
pub use builder::BrokerBuilder;
pub use publisher::Publisher;
pub(crate) use publisher::WeakBroker;
use publisher::publish_async;
#[cfg(feature = "signals")]
pub use signals::run_until_signal;
pub use stream::{EventStream, StreamItem};

/// The deadline of the stop when the last handle is dropped.
pub(crate) const DRAIN_ON_DROP: Duration = Duration::from_secs(5);

/// A handle to an event broker.
///
/// A clone is another handle to the same broker, and every handle can be used from any thread. Dropping the last one
/// stops the broker, which drains for at most 5 s; [`stop`](Self::stop) takes a deadline and reports the result.
///
/// ```
/// use eventbroker::{Broker, Event, Source};
/// use std::time::Duration;
///
/// let broker = Broker::builder().start()?;
/// broker.subscribe("shop.orders.*", |delivery| println!("{} happened", delivery.event().event_type()))?;
/// broker.publish(Event::builder(Source::System, "shop.orders.create").payload(&42).build()?)?;
/// assert!(broker.stop(Duration::from_secs(5)).is_clean());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Broker {
    handle: Arc<Handle>,
}

/// Shared by all handles of a broker. Its drop stops the broker.
#[derive(Debug)]
struct Handle {
    engine: Arc<Engine>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.engine.stop(DRAIN_ON_DROP);
    }
}

impl Broker {
    /// Returns a builder with every setting at its default.
    pub fn builder() -> BrokerBuilder {
        BrokerBuilder::default()
    }

    /// The first handle of an engine.
    pub(crate) fn of(engine: Arc<Engine>) -> Self {
        let handle = Arc::new(Handle { engine: Arc::clone(&engine) });
        let weak: Weak<Handle> = Arc::downgrade(&handle);
        engine.instance.handle.get_or_init(|| weak as Weak<dyn Any + Send + Sync>);
        Self { handle }
    }

    pub(crate) fn engine(&self) -> &Arc<Engine> {
        &self.handle.engine
    }

    /// The name of this instance, which its events carry. Never blocks.
    pub fn instance_id(&self) -> &str {
        &self.engine().instance.id
    }

    /// Starts the threads of the broker, which then accepts events.
    ///
    /// Does not block without a back end. With one, waits until the subscriptions are registered, at most 5 s for each.
    ///
    /// # Errors
    /// [`StartError::AlreadyRunning`]; [`StartError::Stopped`] (a stop is final); [`StartError::Thread`] if a thread
    /// cannot be started.
    pub fn start(&self) -> Result<(), StartError> {
        self.engine().start()
    }

    /// Subscribes a handler to all events that match `pattern`, with default options.
    ///
    /// In a pattern, `*` stands for one segment, a final `**` for one or more, and a lone `*` for every event. The
    /// handler is called on worker threads, possibly on several at once. It may return nothing, an
    /// [`Outcome`](crate::Outcome), or a `Result`. Earlier events are not delivered. Blocks as `subscribe_with` does.
    ///
    /// # Errors
    /// [`SubscribeError`] if the pattern is malformed or the broker has stopped.
    pub fn subscribe<F, R>(&self, pattern: impl AsRef<str>, handler: F) -> Result<SubscriptionId, SubscribeError>
    where
        F: Fn(&Delivery<'_>) -> R + Send + Sync + 'static,
        R: IntoOutcome,
    {
        self.subscribe_with(SubscribeOptions::new(pattern), handler)
    }

    /// Subscribes a handler with options.
    ///
    /// Does not block without a back end. While the broker runs, waits until the back end has registered the
    /// subscription, at most 5 s; after that the registration is retried in the background.
    ///
    /// # Errors
    /// [`SubscribeError`] if an option is outside its bounds, the name is taken, the back end lacks an option or
    /// refuses the subscription, a thread cannot be started, or the broker has stopped.
    pub fn subscribe_with<F, R>(&self, options: SubscribeOptions, handler: F) -> Result<SubscriptionId, SubscribeError>
    where
        F: Fn(&Delivery<'_>) -> R + Send + Sync + 'static,
        R: IntoOutcome,
    {
        let handler = Box::new(move |delivery: &Delivery<'_>| handler(delivery).into_outcome());
        self.engine().subscribe(&options, handler).map(|subscription| subscription.id)
    }

    /// Ends a subscription on this instance. No call begins after this returns.
    ///
    /// Queued deliveries are cancelled; those of a back end are released to other members. Blocks, without a time
    /// limit, until no call runs; inside a handler, and on worker threads, never. Returns how many calls still run.
    ///
    /// # Errors
    /// [`UnknownSubscription`] if this broker has no such subscription.
    pub fn unsubscribe(&self, id: SubscriptionId) -> Result<u64, UnknownSubscription> {
        self.engine().unsubscribe(id).ok_or(UnknownSubscription { id })
    }

    /// Pauses a subscription of this broker until it is [resumed](Self::resume).
    ///
    /// No call of the handler begins meanwhile. Running calls continue; returns how many, and does not wait for them.
    /// Events published here wait in the queue, whose overflow policy applies. Deliveries of a back end that no call
    /// runs are released, so that another member can run them, and no more are received. A
    /// [`publish_sync`](Self::publish_sync) waits for a paused subscription as for any other; a stop cancels its
    /// deliveries at once. Does not block.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let broker = eventbroker::Broker::builder().start()?;
    /// let mailer = broker.subscribe("user.*", |_| ())?;
    /// broker.pause(mailer)?; // the mail server is being replaced
    /// broker.resume(mailer)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`UnknownSubscription`] if this broker has no such subscription.
    pub fn pause(&self, id: SubscriptionId) -> Result<u64, UnknownSubscription> {
        self.engine().pause(id).ok_or(UnknownSubscription { id })
    }

    /// Resumes a [paused](Self::pause) subscription; has no effect on another. Does not block.
    ///
    /// # Errors
    /// [`UnknownSubscription`] if this broker has no such subscription.
    pub fn resume(&self, id: SubscriptionId) -> Result<(), UnknownSubscription> {
        self.engine().resume(id).ok_or(UnknownSubscription { id })
    }

    /// Removes a subscription and its backlog from the back end, for every instance.
    ///
    /// After [`unsubscribe`](Self::unsubscribe), the back end keeps the backlog for the next subscription of that name
    /// in the consumer group; this deletes it. Blocks at most 5 s for the answer. Returns false if the name is unknown,
    /// and without a back end.
    ///
    /// ```no_run
    /// # fn retire(broker: &eventbroker::Broker) -> Result<(), eventbroker::provider::BackendError> {
    /// broker.remove_subscription("mailer")?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`BackendError::Refused`] while this broker has a subscription of that name, or is not running;
    /// [`BackendError::Unavailable`] after 5 s without an answer: the removal is retried in the background.
    pub fn remove_subscription(&self, name: &str) -> Result<bool, BackendError> {
        let engine = self.engine();
        let Some(bridge) = engine.bridge.as_ref().filter(|bridge| bridge.has_ingest) else { return Ok(false) };
        if engine.subscriptions.lock().find_by_name(name).is_some() {
            return Err(BackendError::Refused(format!("this broker still has the subscription {name:?}")));
        }
        if engine.lifecycle.phase() != Phase::Running {
            return Err(BackendError::Refused("broker is not running".to_owned()));
        }
        bridge.remove_permanently(name)
    }

    /// Publishes an event, and returns when the event is accepted.
    ///
    /// Blocks if the queue of a subscription is full and its policy is [`Block`](crate::Overflow::Block), at most for
    /// the policy's time; outside of handlers only. With a back end, also blocks until it has
    /// [confirmed](crate::Confirm) the event, at most `sync_timeout` (default 30 s). In mode [`Sync`](Mode::Sync) it
    /// does what [`publish_sync`](Self::publish_sync) does.
    ///
    /// # Errors
    /// [`PublishError`] with the event, so that it can be published again.
    pub fn publish(&self, event: Event) -> Result<Accepted, PublishError> {
        trace::publish_in_span(self.engine().propagator(), event, |event| self.send(event))
    }

    fn send(&self, event: Event) -> Result<Accepted, PublishError> {
        let engine = self.engine();
        if engine.config.mode == Mode::Sync {
            let report = engine.publish_sync(event)?;
            let deliveries = report.settled.len() + report.open.len();
            return Ok(Accepted { id: report.id, duplicate: report.duplicate, deliveries });
        }
        match engine.mirroring_bridge() {
            Some(bridge) => engine.publish_mirrored(bridge, event, true)?.wait(engine.config.sync_timeout),
            None => engine.publish_local(event, true),
        }
    }

    /// Publishes an event like [`publish`](Self::publish), with the route that a publisher caches.
    pub(crate) fn publish_cached(
        &self,
        event: Event,
        cached: &mut Option<SubscriptionRoute>,
    ) -> Result<Accepted, PublishError> {
        let engine = self.engine();
        let is_plain = engine.config.mode == Mode::Async && engine.mirroring_bridge().is_none();
        if is_plain && !trace::is_wanted(engine.propagator()) {
            engine.publish_cached(event, cached)
        } else {
            self.publish(event)
        }
    }

    /// Creates a [`Publisher`] of events of one type from one source.
    ///
    /// It is for a thread that publishes many such events: it caches their route. Does not block.
    ///
    /// # Errors
    /// [`Invalid`] if the type is malformed.
    pub fn publisher(
        &self,
        source: Source,
        event_type: impl TryInto<EventType, Error: Into<Invalid>>,
    ) -> Result<Publisher, Invalid> {
        let event_type = event_type.try_into().map_err(Into::into)?;
        Ok(Publisher::new(self.clone(), source, event_type))
    }

    /// Publishes an event without blocking; the [`Receipt`] gives the outcome.
    ///
    /// It waits neither for room in a queue nor for the back end. [`Receipt::wait`] blocks for the back end's answer.
    ///
    /// # Errors
    /// [`PublishError`] with the event: [`Full`](PublishError::Full) if a queue is full, unless its overflow policy
    /// drops.
    pub fn publish_async(&self, event: Event) -> Result<Receipt, PublishError> {
        publish_async(self.engine(), event)
    }

    /// Publishes an event, and blocks until each of its deliveries here is terminal.
    ///
    /// Retries are included. Waits at most `sync_timeout` (default 30 s); deliveries without a verdict by then are
    /// reported as open. If a subscription is free, its handler is called on this thread, without a time limit; the
    /// others run on worker threads. Before that it may block as [`publish`](Self::publish) does. Two handlers that at
    /// the same moment publish to each other's subscription wait for each other until the timeout.
    ///
    /// # Errors
    /// [`PublishError`] with the event; [`WouldDeadlock`](PublishError::WouldDeadlock) inside a handler for which it
    /// would have to wait.
    pub fn publish_sync(&self, event: Event) -> Result<SyncReport, PublishError> {
        trace::publish_in_span(self.engine().propagator(), event, |event| self.engine().publish_sync(event))
    }

    /// Publishes many events, and waits for the back end once for all of them.
    ///
    /// Each event is accepted or refused on its own, as [`publish`](Self::publish) does in mode async, and may block
    /// for a full queue. Blocks for the back end at most `sync_timeout` (default 30 s) in total. The outcomes are in
    /// the order of the events.
    ///
    /// # Errors
    /// None as a whole: each outcome may be a [`PublishError`] with its event.
    pub fn publish_batch(&self, events: impl IntoIterator<Item = Event>) -> Vec<Result<Accepted, PublishError>> {
        let engine = self.engine();
        let span = trace::batch_span();
        let events = events.into_iter().map(|mut event| {
            trace::inject(engine.propagator(), &mut event);
            event
        });
        let Some(bridge) = engine.mirroring_bridge() else {
            let mut cached = None;
            let outcomes: Vec<_> = events.map(|event| engine.publish_cached(event, &mut cached)).collect();
            span.count(outcomes.len());
            return outcomes;
        };
        let receipts: Vec<_> = events.map(|event| engine.publish_mirrored(bridge, event, true)).collect();
        let deadline = engine.clock.deadline(engine.config.sync_timeout);
        let wait = |receipt: Receipt| receipt.wait(engine.clock.sleep_until(deadline));
        span.count(receipts.len());
        receipts.into_iter().map(|receipt| receipt.and_then(wait)).collect()
    }

    /// Opens a stream of the matching events that are accepted from now on.
    ///
    /// The stream is a blocking iterator. If the back end offers streams, it has the events of every instance, and this
    /// call blocks for one round trip; else it has the events of this instance, and the call does not block.
    ///
    /// # Errors
    /// [`SubscribeError::Invalid`] if the pattern is malformed, [`SubscribeError::Refused`] if the back end failed.
    pub fn stream(&self, pattern: impl AsRef<str>) -> Result<EventStream, SubscribeError> {
        self.stream_from(pattern, StartPosition::New)
    }

    /// Opens a [`stream`](Self::stream) from a position in the events that the back end holds.
    ///
    /// # Errors
    /// As [`stream`](Self::stream); [`SubscribeError::Unsupported`] if the back end offers no streams and `start` is
    /// not [`StartPosition::New`].
    pub fn stream_from(&self, pattern: impl AsRef<str>, start: StartPosition) -> Result<EventStream, SubscribeError> {
        self.engine().stream_of(Pattern::parse(pattern.as_ref())?, &start)
    }

    /// Adds an observer, which is called with the verdict of each delivery.
    ///
    /// It is called on the thread that settles the delivery, before a `publish_sync` returns, and delays that thread
    /// while it runs. A panic in it is logged. Observers cannot be removed. Does not block.
    pub fn on_settled(&self, observer: impl Fn(&Settled<'_>) + Send + Sync + 'static) {
        self.engine().observers.add(observer);
    }

    /// Stops the broker: drains what was accepted, then ends and joins the threads.
    ///
    /// New events are refused, and blocked publishers get theirs back. The stop waits for the accepted events, for
    /// retries that are due before the deadline, and for what goes to the back end; later retries are cancelled at
    /// once. Blocks at most for `deadline` plus 250 ms. Inside a handler, and on worker threads, it only begins the
    /// stop, and the report is not [`finished`](StopReport::finished). Final: a second call returns the first report.
    pub fn stop(&self, deadline: Duration) -> StopReport {
        self.engine().stop(deadline)
    }

    /// Returns [`stop`](Self::stop) as a closure, for a list of shutdown callbacks.
    ///
    /// The closure holds a handle, so it keeps the broker alive until it is dropped. Each call does what `stop` does.
    ///
    /// ```
    /// use eventbroker::{Broker, StopReport};
    /// use std::time::Duration;
    ///
    /// let broker = Broker::builder().start()?;
    /// let mut on_shutdown: Vec<Box<dyn Fn() -> StopReport + Send>> = Vec::new();
    /// on_shutdown.push(Box::new(broker.shutdown_callback(Duration::from_secs(10))));
    /// assert!(on_shutdown.iter().all(|callback| callback().is_clean()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn shutdown_callback(&self, deadline: Duration) -> impl Fn() -> StopReport + Clone + Send + Sync + 'static {
        let broker = self.clone();
        move || broker.stop(deadline)
    }

    /// Brings the deadline of a stop under way forward to now.
    #[cfg(feature = "signals")]
    pub(crate) fn expedite_stop(&self) {
        self.engine().expedite_stop();
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("instance_id", &self.instance_id()).finish_non_exhaustive()
    }
}

impl Delivery<'_> {
    /// The broker, to publish from inside a handler; `None` once its last handle is dropped.
    ///
    /// Handlers should use this instead of a handle of their own, which would keep the broker alive. Does not block.
    pub fn broker(&self) -> Option<Broker> {
        let handle = self.context.handle.get()?.upgrade()?;
        handle.downcast::<Handle>().ok().map(|handle| Broker { handle })
    }
}
