//! A publisher of one type of events: what a thread that publishes many of them need not look up each time. What publishing
//! means is told in `broker`.

use std::fmt;

use super::Broker;
use crate::engine::SubscriptionRoute;
use crate::event::{Event, EventBuilder, EventType, Source};
use crate::outcome::{Accepted, PublishError};

/// Publishes events of one type from one source; made by [`Broker::publisher`]. It remembers who receives them until a
/// subscription comes or goes, so a thread that publishes many should have one. A clone is for another thread.
///
/// Like any handle it keeps the broker alive. It may also keep the handler of a removed subscription in memory, never called
/// again, until it publishes the next time.
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
    kept: Option<SubscriptionRoute>,
}

impl Publisher {
    pub(crate) fn new(broker: Broker, source: Source, event_type: EventType) -> Self {
        Self { broker, source, event_type, kept: None }
    }

    /// Begins an event of this type from this source.
    pub fn event(&self) -> EventBuilder {
        Event::builder(self.source, self.event_type.again())
    }

    /// Publishes an event as [`Broker::publish`] does. It may be of another type, at the price of a look-up.
    ///
    /// # Errors
    /// [`PublishError`] with the event, so that it can be published again.
    pub fn publish(&mut self, event: Event) -> Result<Accepted, PublishError> {
        self.broker.publish_cached(event, &mut self.kept)
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("source", &self.source)
            .field("event_type", &self.event_type)
            .finish_non_exhaustive()
    }
}
