//! Handles that only publish: one caches the route of one type, one does not keep the broker alive.

use std::fmt;
use std::sync::{Arc, Weak};

use super::Broker;
use crate::bridge::Receipt;
use crate::engine::{Engine, SubscriptionRoute};
use crate::event::{Event, EventBuilder, EventType, Source};
use crate::outcome::{Accepted, PublishError};
use crate::telemetry::trace;

/// Publishes events of one type from one source. Created by [`Broker::publisher`].
///
/// It caches the route of its events until a subscription is added or removed, so a thread that publishes many of them
/// should have one. Clone it for another thread. Like any handle, it keeps the broker alive. Until its next publish it
/// may also keep the handler of a removed subscription in memory, which is not called again.
///
/// ```
/// use eventbroker::{Broker, Source};
///
/// let broker = Broker::builder().start()?;
/// let mut readings = broker.publisher(Source::System, "plant.sensor.reading")?;
/// for celsius in [20, 21, 23] {
///     readings.publish(readings.event().payload(&celsius).build()?)?;
/// }
/// assert_eq!(broker.stats().accepted, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Publisher {
    broker: Broker,
    source: Source,
    event_type: EventType,
    route: Option<SubscriptionRoute>,
}

impl Publisher {
    pub(crate) fn new(broker: Broker, source: Source, event_type: EventType) -> Self {
        Self { broker, source, event_type, route: None }
    }

    /// Returns a builder of an event of this type from this source.
    pub fn event(&self) -> EventBuilder {
        Event::builder(self.source, self.event_type.again())
    }

    /// Publishes an event as [`Broker::publish`] does, and blocks as that does.
    ///
    /// The event may be of another type, which costs a lookup of its route.
    ///
    /// # Errors
    /// [`PublishError`] with the event, so that it can be published again.
    pub fn publish(&mut self, event: Event) -> Result<Accepted, PublishError> {
        self.broker.publish_cached(event, &mut self.route)
    }
}

impl Broker {
    /// A reference that does not keep the broker alive.
    pub(crate) fn downgrade(&self) -> WeakBroker {
        WeakBroker { engine: Arc::downgrade(self.engine()) }
    }
}

/// Publishes without keeping the broker alive.
// Not the handle: an upgraded one could become the last, and its drop would stop the broker on the publisher's thread.
#[derive(Debug, Clone)]
pub(crate) struct WeakBroker {
    engine: Weak<Engine>,
}

impl WeakBroker {
    /// Like [`Broker::publish_async`]. If the broker was dropped, the event is refused as not running.
    pub(crate) fn publish_async(&self, event: Event) -> Result<Receipt, PublishError> {
        match self.engine.upgrade() {
            Some(engine) => publish_async(&engine, event),
            None => Err(PublishError::NotRunning { event: Box::new(event) }),
        }
    }
}

/// Publishes an event without blocking, for [`Broker::publish_async`].
pub(super) fn publish_async(engine: &Arc<Engine>, event: Event) -> Result<Receipt, PublishError> {
    trace::publish_in_span(engine.propagator(), event, |event| match engine.mirroring_bridge() {
        Some(bridge) => engine.publish_mirrored(bridge, event, false),
        None => engine.publish_local(event, false).map(Receipt::known),
    })
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("source", &self.source)
            .field("event_type", &self.event_type)
            .finish_non_exhaustive()
    }
}
