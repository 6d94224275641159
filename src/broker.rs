//! The broker: the front door. It wires the parts together and owns none of their data.

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
#[cfg(feature = "signals")]
pub use signals::run_until_signal;
pub use stream::{EventStream, StreamItem};

/// How long dropping the last handle drains.
pub(crate) const DRAIN_ON_DROP: Duration = Duration::from_secs(5);

/// An event broker. Cloning gives another handle to the same one; it can be used from any thread.
///
/// Dropping the last handle stops it, draining for at most 5 seconds; [`stop`](Self::stop) does so with a deadline of your
/// choice and tells what became of everything.
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

/// What all handles share; its end is the end of the broker.
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
    /// A builder with every default.
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

    /// A handle that does not keep the broker alive.
    pub(crate) fn downgrade(&self) -> WeakBroker {
        WeakBroker { engine: Arc::downgrade(self.engine()) }
    }

    /// The name of this instance, which its events carry.
    pub fn instance_id(&self) -> &str {
        &self.engine().instance.id
    }

    /// Starts the threads; from now on events are taken. Does not block.
    ///
    /// # Errors
    /// [`StartError::AlreadyRunning`], [`StartError::Stopped`] (stopping is final), [`StartError::Thread`].
    pub fn start(&self) -> Result<(), StartError> {
        self.engine().start()
    }

    /// Subscribes a handler to all events that match `pattern`, with every default. Does not block.
    ///
    /// `*` stands for one segment, a final `**` for one or more, and a lone `*` for every event. The handler is called on
    /// worker threads, possibly on several at once. It may return nothing, an [`Outcome`](crate::Outcome), or a `Result`.
    /// What was published before this call is not delivered.
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

    /// Subscribes a handler with options. Does not block.
    ///
    /// # Errors
    /// [`SubscribeError`] if an option is outside its bounds, the name is taken, the back end does not offer what is asked
    /// for, or the broker has stopped.
    pub fn subscribe_with<F, R>(&self, options: SubscribeOptions, handler: F) -> Result<SubscriptionId, SubscribeError>
    where
        F: Fn(&Delivery<'_>) -> R + Send + Sync + 'static,
        R: IntoOutcome,
    {
        let handler = Box::new(move |delivery: &Delivery<'_>| handler(delivery).into_outcome());
        self.engine().subscribe(&options, handler).map(|subscription| subscription.id)
    }

    /// Ends a subscription: no call begins after this returns, and what was queued is cancelled. Blocks until no call runs,
    /// however long that takes; inside a handler, and on worker threads, it never waits. Returns how many calls still run.
    ///
    /// # Errors
    /// [`UnknownSubscription`] if there is no such subscription.
    pub fn unsubscribe(&self, id: SubscriptionId) -> Result<u64, UnknownSubscription> {
        self.engine().unsubscribe(id).ok_or(UnknownSubscription { id })
    }

    /// Pauses a subscription of this broker: no call of its handler begins until it is [resumed](Self::resume). Calls that run go on;
    /// returns how many, and does not wait for them. What was published here waits in the queue, whose overflow policy holds; what
    /// a back end has handed over and no call runs under goes back, so that another member can run it, and none is fetched. A
    /// [`publish_sync`](Self::publish_sync) waits for the deliveries of a paused subscription like for any other. A stop does not:
    /// what waits is cancelled.
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
    /// [`UnknownSubscription`] if there is no such subscription.
    pub fn pause(&self, id: SubscriptionId) -> Result<u64, UnknownSubscription> {
        self.engine().pause(id).ok_or(UnknownSubscription { id })
    }

    /// Has the calls of a [paused](Self::pause) subscription begin again; does nothing to one that is not.
    ///
    /// # Errors
    /// [`UnknownSubscription`] if there is no such subscription.
    pub fn resume(&self, id: SubscriptionId) -> Result<(), UnknownSubscription> {
        self.engine().resume(id).ok_or(UnknownSubscription { id })
    }

    /// Removes a subscription of this consumer group from the back end, with the events that wait for it. What `unsubscribe`
    /// leaves goes on waiting for the next one of that name; this ends it, for every instance. Waits for the back end at most 5 s.
    /// False if there was none of that name, or without a back end.
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
    /// [`BackendError::Unavailable`] if the back end has not answered in time.
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

    /// Publishes an event. In mode [`Sync`](Mode::Sync) it does what [`publish_sync`](Self::publish_sync) does; else it
    /// returns as soon as the event is accepted. Blocks only for room, where a subscription's policy is
    /// [`Block`](crate::Overflow::Block), and for the back end's confirmation, at most `sync_timeout`.
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

    /// Publishes an event like [`publish`](Self::publish), but with the route that a publisher keeps.
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

    /// A publisher of events of one type from one source, for a thread that publishes many of them: it looks the
    /// subscriptions up once, not for each event. Does not block.
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

    /// Publishes an event without ever waiting, neither for room nor for the back end, whose answer the receipt will know.
    ///
    /// # Errors
    /// [`PublishError`] with the event; [`Full`](PublishError::Full) whatever the overflow policy, unless it drops.
    pub fn publish_async(&self, event: Event) -> Result<Receipt, PublishError> {
        publish_async(self.engine(), event)
    }

    /// Publishes an event and blocks until each of its deliveries here is terminal, retries included, at most for
    /// `sync_timeout`. A subscription that is free is run on the calling thread; one that is not, in its turn. Two handlers that
    /// each publish to the other one's subscription at the same moment wait for each other until then.
    ///
    /// # Errors
    /// [`PublishError`] with the event. [`WouldDeadlock`](PublishError::WouldDeadlock) if called inside a handler that it
    /// would have to wait for.
    pub fn publish_sync(&self, event: Event) -> Result<SyncReport, PublishError> {
        trace::publish_in_span(self.engine().propagator(), event, |event| self.engine().publish_sync(event))
    }

    /// Publishes many events, each as [`publish`](Self::publish) does in mode async, and waits for the back end once for all.
    /// The outcomes are in the order of the events; each event is accepted or refused by itself.
    ///
    /// # Errors
    /// None by itself: each outcome is a [`PublishError`] or not.
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

    /// PollPace on: a blocking iterator over the events that match `pattern`, accepted from now on; with a back end that can show
    /// them, those of every instance. Does not block without a back end, else for one round trip.
    ///
    /// # Errors
    /// [`SubscribeError::Invalid`] if the pattern is malformed, [`SubscribeError::Refused`] if the back end failed.
    pub fn stream(&self, pattern: impl AsRef<str>) -> Result<EventStream, SubscribeError> {
        self.stream_from(pattern, StartPosition::New)
    }

    /// As [`stream`](Self::stream), from another position on, of what the back end still holds.
    ///
    /// # Errors
    /// As there; [`SubscribeError::Unsupported`] if the back end can't do that.
    pub fn stream_from(&self, pattern: impl AsRef<str>, start: StartPosition) -> Result<EventStream, SubscribeError> {
        self.engine().stream_of(Pattern::parse(pattern.as_ref())?, &start)
    }

    /// Calls `observer` with the verdict of each delivery, on the thread that settles it, before `publish_sync` returns. It
    /// should be quick. Observers can't be removed.
    pub fn on_settled(&self, observer: impl Fn(&Settled<'_>) + Send + Sync + 'static) {
        self.engine().observers.add(observer);
    }

    /// Stops: refuses new events, gives blocked publishers theirs back, handles what was accepted, flushes what goes to the
    /// back end, and joins every thread. Blocks at most for `deadline` and a quarter of a second. Retries that are due within
    /// the deadline are waited for, later ones are given up at once. Final; a second call returns the first report. Inside a
    /// handler, and on worker threads, it only begins the stop, and the report says so.
    pub fn stop(&self, deadline: Duration) -> StopReport {
        self.engine().stop(deadline)
    }

    /// The stop as a value, for a server that keeps a list of what to call when it shuts down. It holds a handle, so the
    /// broker lives until it is dropped. Each call does what [`stop`](Self::stop) does.
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

    /// Makes a stop that is under way give up what is not handled yet.
    #[cfg(feature = "signals")]
    pub(crate) fn expedite_stop(&self) {
        self.engine().expedite_stop();
    }
}

/// A way to publish that does not keep the broker alive.
// It holds the engine and not the handle: a handle that is borrowed for a moment could turn out to be the last one, and its
// end would stop the broker on the thread of whoever published.
#[derive(Debug, Clone)]
pub(crate) struct WeakBroker {
    engine: Weak<Engine>,
}

impl WeakBroker {
    /// As [`Broker::publish_async`]. A broker that is gone is not running.
    pub(crate) fn publish_async(&self, event: Event) -> Result<Receipt, PublishError> {
        match self.engine.upgrade() {
            Some(engine) => publish_async(&engine, event),
            None => Err(PublishError::NotRunning { event: Box::new(event) }),
        }
    }
}

fn publish_async(engine: &Arc<Engine>, event: Event) -> Result<Receipt, PublishError> {
    trace::publish_in_span(engine.propagator(), event, |event| match engine.mirroring_bridge() {
        Some(bridge) => engine.publish_mirrored(bridge, event, false),
        None => engine.publish_local(event, false).map(Receipt::known),
    })
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker").field("instance_id", &self.instance_id()).finish_non_exhaustive()
    }
}

impl Delivery<'_> {
    /// The broker, to publish from inside a handler. `None` once its last handle is gone. Handlers should use this and not
    /// hold a handle of their own, which would keep the broker alive.
    pub fn broker(&self) -> Option<Broker> {
        let handle = self.context.handle.get()?.upgrade()?;
        handle.downcast::<Handle>().ok().map(|handle| Broker { handle })
    }
}
