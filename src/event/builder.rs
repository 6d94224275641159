//! The event builder. It checks each field when it is set; `build` reports the first refused one and returns the
//! builder.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use serde_json::Value;

use super::invalid::{Invalid, Problem};
use super::sole_copy::SoleCopy;
use super::{
    Event, EventId, EventType, Payload, Rare, Source, Status, TRACEPARENT, bounds, segments_of_three, trace_context,
};
use crate::base::wall_nanos;

/// Builds an event. Created by [`Event::builder`].
///
/// Setting a field again replaces it. An empty text unsets the field, except for id, type and `traceparent`, which must
/// not be empty. The bounds are constants of [`Event`] and [`Payload`].
///
/// ```
/// use eventbroker::{Event, Source};
///
/// let refused = Event::builder(Source::Internal, "orders.paid").key("a\nb").user_id(7).build().unwrap_err();
/// assert_eq!(refused.invalid().field, "key");
///
/// let event = refused.into_builder().key("a-b").build()?;
/// assert_eq!((event.key(), event.user_id()), (Some("a-b"), Some(7)));
/// # Ok::<(), eventbroker::error::BuildError>(())
/// ```
#[derive(Debug)]
#[must_use = "an event is made only by `build`"]
pub struct EventBuilder {
    source: Source,
    event_type: Option<EventType>,
    id: Option<EventId>,
    payload: Payload,
    key: Option<Arc<str>>,
    instance_id: Option<Arc<str>>,
    user_id: i64,
    created: Option<u64>,
    rare: Option<Box<Rare>>,
    refused: Option<Box<Refusals>>,
}

// Each method moves the builder; up to this size that takes no call of `memcpy`.
const _: () = assert!(size_of::<EventBuilder>() <= 128);

/// The refused fields that were not set again, in the order of their refusal, at most one entry per field.
#[derive(Debug, Default)]
struct Refusals(Vec<Invalid>);

/// A field was refused, so no event was built. Returns the builder.
#[derive(Debug, thiserror::Error)]
#[error("invalid event: {}", .0.invalid)]
pub struct BuildError(Box<Refused>);

#[derive(Debug)]
struct Refused {
    invalid: Invalid,
    builder: EventBuilder,
}

impl BuildError {
    /// The refused field, and the bound that it broke.
    #[must_use]
    pub fn invalid(&self) -> &Invalid {
        &self.0.invalid
    }

    /// Returns the builder with all valid fields.
    /// The refused field is unset. If more fields were refused, the next `build` reports the next of them that has not
    /// been set again.
    pub fn into_builder(self) -> EventBuilder {
        self.0.builder
    }
}

impl From<BuildError> for Invalid {
    fn from(error: BuildError) -> Self {
        error.0.invalid
    }
}

impl EventBuilder {
    pub(super) fn new(source: Source, event_type: impl TryInto<EventType, Error: Into<Invalid>>) -> Self {
        let builder = Self {
            source,
            event_type: None,
            id: None,
            payload: Payload::null(),
            key: None,
            instance_id: None,
            user_id: 0,
            created: None,
            rare: None,
            refused: None,
        };
        builder.event_type(event_type)
    }

    /// Replaces the type: a `&str`, a `String` or an [`EventType`].
    pub fn event_type(mut self, event_type: impl TryInto<EventType, Error: Into<Invalid>>) -> Self {
        self.event_type = self.checked("type", event_type.try_into());
        self
    }

    /// Sets the id: a `&str`, a `String` or an [`EventId`].
    /// 1 to 255 bytes, no control characters. Default: a new UUID of version 7.
    pub fn id(mut self, id: impl TryInto<EventId, Error: Into<Invalid>>) -> Self {
        self.id = self.checked("id", id.try_into());
        self
    }

    /// Sets the payload, serialized as JSON; see [`Payload::from_serialize`].
    pub fn payload<T: Serialize + ?Sized>(mut self, value: &T) -> Self {
        self.payload = self.checked("payload", Payload::from_serialize(value)).unwrap_or_default();
        self
    }

    /// Sets the payload from JSON text; see [`Payload::from_json`].
    pub fn payload_json(mut self, json: impl AsRef<[u8]>) -> Self {
        self.payload = self.checked("payload", Payload::from_json(json)).unwrap_or_default();
        self
    }

    /// Sets the payload from one that is checked already.
    pub fn payload_raw(mut self, payload: Payload) -> Self {
        self.payload = self.checked("payload", Ok::<_, Invalid>(payload)).unwrap_or_default();
        self
    }

    /// Sets the user that the event is about or comes from; 0 means none.
    pub fn user_id(mut self, user_id: i64) -> Self {
        self.user_id = user_id;
        self
    }

    /// Sets the session of origin: at most 255 bytes, no control characters.
    pub fn session_id(self, session_id: impl Into<String>) -> Self {
        self.rare_text("session_id", session_id.into(), |rare| &mut rare.session_id)
    }

    /// Sets the publishing instance: at most 255 bytes, no control characters.
    /// Default: the instance of the broker that publishes the event.
    pub fn instance_id(mut self, instance_id: impl AsRef<str>) -> Self {
        self.instance_id = self.shared_text("instance_id", instance_id.as_ref());
        self
    }

    /// Sets the schema: at most 255 bytes, no control characters.
    /// Default: the first segment of a type with three segments.
    pub fn schema(self, schema: impl Into<String>) -> Self {
        self.rare_text("schema", schema.into(), |rare| &mut rare.schema)
    }

    /// Sets the entity: at most 255 bytes, no control characters.
    /// Default: the second segment of a type with three segments.
    pub fn entity(self, entity: impl Into<String>) -> Self {
        self.rare_text("entity", entity.into(), |rare| &mut rare.entity)
    }

    /// Sets the operation: at most 255 bytes, no control characters.
    /// Default: the third segment of a type with three segments.
    pub fn operation(self, operation: impl Into<String>) -> Self {
        self.rare_text("operation", operation.into(), |rare| &mut rare.operation)
    }

    /// Sets the ordering key: at most 255 bytes, no control characters.
    /// A subscription receives the events of one key in publish order.
    pub fn key(mut self, key: impl AsRef<str>) -> Self {
        self.key = self.shared_text("key", key.as_ref());
        self
    }

    /// Adds a metadata entry, or replaces the one of that name.
    /// At most 64 entries, names of 1 to 255 bytes, values nested at most 64 levels, and 64 KiB of JSON in all.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        let added = self.rare.get_or_insert_default().metadata.insert(key.into(), value.into());
        if let Err(invalid) = added {
            let refused = &mut self.refused.get_or_insert_default().0;
            if !refused.iter().any(|earlier| earlier.field == invalid.field) {
                refused.push(invalid);
            }
        }
        self
    }

    /// Sets the trace that the event belongs to, as a W3C `traceparent`.
    /// A [`traceparent`](https://www.w3.org/TR/trace-context/#traceparent-header) looks like
    /// `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`. It becomes the metadata entry of that name, and no
    /// [`Propagator`](crate::trace::Propagator) changes it.
    pub fn traceparent(mut self, traceparent: impl AsRef<str>) -> Self {
        let text = traceparent.as_ref();
        match self.checked(TRACEPARENT, trace_context::check_traceparent(text)) {
            Some(()) => self.metadata(TRACEPARENT, text),
            None => self,
        }
    }

    /// Sets the time of the event, from 1970 to 2554. Default: the time of `build`.
    pub fn created_at(mut self, time: SystemTime) -> Self {
        let nanos = time.duration_since(UNIX_EPOCH).ok().and_then(|since| u64::try_from(since.as_nanos()).ok());
        self.created = self.checked("created_at", nanos.ok_or_else(out_of_time));
        self
    }

    /// Builds the event, with the status `Pending`.
    ///
    /// # Errors
    /// The first field that was refused, with the builder for another attempt.
    pub fn build(mut self) -> Result<Event, BuildError> {
        let event_type = match self.event_type.take() {
            Some(event_type) if self.refused.is_none() => event_type,
            absent_or_other => {
                self.event_type = absent_or_other;
                return Err(self.refuse());
            }
        };
        // One clock reading serves both the id and the time.
        let now = if self.id.is_none() || self.created.is_none() { wall_nanos() } else { 0 };
        Ok(Event {
            sole_copy: SoleCopy::new(self.id.is_none()),
            id: self.id.unwrap_or_else(|| EventId::generate(now)),
            rare: self.rare.and_then(|rare| without_derived(*rare, &event_type).boxed()),
            event_type,
            payload: self.payload,
            key: self.key,
            instance_id: self.instance_id,
            created: self.created.unwrap_or(now),
            user_id: self.user_id,
            retry_count: 0,
            source: self.source,
            status: Status::Pending,
        })
    }

    #[cold]
    fn refuse(mut self) -> BuildError {
        let first = self.refused.as_mut().map(|refused| refused.0.remove(0));
        self.refused.take_if(|refused| refused.0.is_empty());
        let invalid = first.unwrap_or_else(|| Invalid::new("type", Problem::Missing));
        BuildError(Box::new(Refused { invalid, builder: self }))
    }

    /// Returns a valid value, or records the refusal. Either replaces an earlier refusal of the field.
    fn checked<T, E: Into<Invalid>>(&mut self, field: &'static str, value: Result<T, E>) -> Option<T> {
        if let Some(refused) = &mut self.refused {
            refused.0.retain(|earlier| earlier.field != field);
            self.refused.take_if(|refused| refused.0.is_empty());
        }
        match value {
            Ok(value) => Some(value),
            Err(error) => {
                // A conversion by the caller may name another field.
                let invalid = Invalid { field, ..error.into() };
                self.refused.get_or_insert_default().0.push(invalid);
                None
            }
        }
    }

    fn shared_text(&mut self, field: &'static str, text: &str) -> Option<Arc<str>> {
        let checked = bounds::check_text(text).map_err(|problem| Invalid::new(field, problem));
        self.checked(field, checked)?;
        (!text.is_empty()).then(|| text.into())
    }

    fn rare_text(
        mut self,
        field: &'static str,
        text: String,
        place: impl FnOnce(&mut Rare) -> &mut Option<Box<str>>,
    ) -> Self {
        let checked = bounds::check_text(&text).map_err(|problem| Invalid::new(field, problem));
        let text = self.checked(field, checked.map(|()| text)).filter(|text| !text.is_empty());
        if text.is_some() || self.rare.is_some() {
            *place(self.rare.get_or_insert_default()) = text.map(String::into_boxed_str);
        }
        self
    }
}

/// Unsets the names that equal the type's segments, so that setting them makes no difference.
fn without_derived(mut rare: Rare, event_type: &EventType) -> Rare {
    if let Some(segments) = segments_of_three(event_type) {
        let names = [&mut rare.schema, &mut rare.entity, &mut rare.operation];
        for (name, segment) in names.into_iter().zip(segments) {
            name.take_if(|name| **name == *segment);
        }
    }
    rare
}

fn out_of_time() -> Invalid {
    Invalid::new("created_at", Problem::OutOfBounds("is not between the years 1970 and 2554".to_owned()))
}
