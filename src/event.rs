//! The event: what happened, to what, and how far its handling has come. How one is built and checked is told in
//! `event/builder.rs`, when two say the same in `event/content.rs`, how its progress changes in `event/progress.rs`, its single parts
//! beside these, its JSON in `codec.rs`. Who receives it is not told here.

mod bounds;
mod builder;
mod content;
mod depth;
mod event_type;
mod id;
mod invalid;
mod json;
mod metadata;
mod pattern;
mod payload;
mod progress;
mod sole_copy;
mod source;
mod status;
mod trace_context;

use std::sync::{Arc, LazyLock};
use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Map, Value};

pub use builder::{BuildError, EventBuilder};
pub use event_type::EventType;
pub use id::EventId;
pub use invalid::{Invalid, Problem};
use metadata::Metadata;
pub use pattern::Pattern;
#[cfg(any(test, feature = "internals"))]
pub use pattern::matches;
pub(crate) use pattern::{ONE, REST};
pub use payload::{DecodeError, Payload};
use sole_copy::SoleCopy;
pub use source::Source;
pub use status::Status;
pub(crate) use trace_context::TRACEPARENT;

use crate::base::system_time;

/// The type of an event on an entity: `schema.entity.operation`.
///
/// ```
/// assert_eq!(eventbroker::event_type("public", "users", "create"), "public.users.create");
/// ```
#[must_use]
pub fn event_type(schema: &str, entity: &str, operation: &str) -> String {
    format!("{schema}.{entity}.{operation}")
}

/// Something that happened. Once built it does not change: handlers share it, and nobody copies it.
///
/// ```
/// use eventbroker::{Event, Source, Status};
///
/// let event = Event::builder(Source::Database, "public.users.create")
///     .payload(&["Ada", "Grace"])
///     .user_id(42)
///     .build()?;
/// assert_eq!(event.status(), Status::Pending);
/// assert_eq!(event.entity(), Some("users"));
/// assert_eq!(event.payload_as::<Vec<String>>().expect("two names"), ["Ada", "Grace"]);
/// # Ok::<(), eventbroker::error::BuildError>(())
/// ```
// Small, because it is moved into the broker's record as a whole; what few events have is boxed.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    id: EventId,
    event_type: EventType,
    payload: Payload,
    key: Option<Arc<str>>,
    instance_id: Option<Arc<str>>,
    /// In nanoseconds since 1970, as all times here.
    created: u64,
    /// 0 if there is none, as in the JSON.
    user_id: i64,
    retry_count: u32,
    source: Source,
    status: Status,
    sole_copy: SoleCopy,
    rare: Option<Box<Rare>>,
}

const _: () = assert!(size_of::<Event>() <= 128);

/// What few events have. An event whose `Rare` would be the default has none, so that equal events compare as equal.
#[derive(Debug, Clone, Default, PartialEq)]
struct Rare {
    session_id: Option<Box<str>>,
    /// These three only if they differ from the segments of the type.
    schema: Option<Box<str>>,
    entity: Option<Box<str>>,
    operation: Option<Box<str>>,
    metadata: Metadata,
    processed: Option<u64>,
    completed: Option<u64>,
    error: Option<Box<str>>,
}

impl Rare {
    fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

impl Event {
    /// The longest id and the longest type, in bytes. Neither may be empty.
    pub const MAX_ID_BYTES: usize = bounds::MAX_TEXT_BYTES;
    /// The longest key, session id, instance id, schema, entity and operation, in bytes.
    pub const MAX_TEXT_BYTES: usize = bounds::MAX_TEXT_BYTES;
    /// The most entries of metadata.
    pub const MAX_METADATA_ENTRIES: usize = metadata::MAX_ENTRIES;
    /// The longest name of a metadata entry, in bytes. None may be empty.
    pub const MAX_METADATA_KEY_BYTES: usize = bounds::MAX_TEXT_BYTES;
    /// The deepest nesting of a metadata value; one open bracket is depth 1.
    pub const MAX_METADATA_DEPTH: usize = bounds::MAX_DEPTH;
    /// The largest metadata, written as JSON, in bytes.
    pub const MAX_METADATA_BYTES: usize = metadata::MAX_BYTES;

    /// Begins a new event. Source and type are required; all else has a default.
    ///
    /// The type is a `&str`, a `String` or an [`EventType`]. If it is refused, [`EventBuilder::build`] says so.
    pub fn builder(source: Source, event_type: impl TryInto<EventType, Error: Into<Invalid>>) -> EventBuilder {
        EventBuilder::new(source, event_type)
    }

    /// The id; a new UUID of version 7 unless one was given.
    #[must_use]
    pub fn id(&self) -> &EventId {
        &self.id
    }

    /// Whether a back end may hold this event already.
    ///
    /// False if the id was made by [`build`](EventBuilder::build), and the event has neither been copied nor written as JSON nor come
    /// back from a publish since: then no back end needs to look the id up. For the events of a [`Mirror`](crate::provider::Mirror)
    /// the answer is that of the moment of their publish.
    #[must_use]
    pub fn may_exist(&self) -> bool {
        !self.sole_copy.get()
    }

    /// Where the event comes from.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// The type, which patterns are matched against.
    #[must_use]
    pub fn event_type(&self) -> &EventType {
        &self.event_type
    }

    /// How far the handling had come when this copy of the event was made; `Pending` for one that was just built.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// The payload; null unless one was given.
    #[must_use]
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// The payload, parsed. `T` may borrow from it.
    ///
    /// # Errors
    /// The payload does not fit `T`.
    pub fn payload_as<'a, T: Deserialize<'a>>(&'a self) -> Result<T, DecodeError> {
        self.payload.parse()
    }

    /// The user that the event is about or comes from. 0 means none.
    #[must_use]
    pub fn user_id(&self) -> Option<i64> {
        (self.user_id != 0).then_some(self.user_id)
    }

    /// The session that the event comes from.
    #[must_use]
    pub fn session_id(&self) -> Option<&str> {
        self.rare.as_ref()?.session_id.as_deref()
    }

    /// The instance of the program that published the event first; none before it is published.
    #[must_use]
    pub fn instance_id(&self) -> Option<&str> {
        self.instance_id.as_deref()
    }

    /// The schema: the one that was given, else the first segment of a type of three.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.explicit_names()[0].or_else(|| Some(segments_of_three(&self.event_type)?[0]))
    }

    /// The entity: the one that was given, else the second segment of a type of three.
    #[must_use]
    pub fn entity(&self) -> Option<&str> {
        self.explicit_names()[1].or_else(|| Some(segments_of_three(&self.event_type)?[1]))
    }

    /// The operation: the one that was given, else the third segment of a type of three.
    #[must_use]
    pub fn operation(&self) -> Option<&str> {
        self.explicit_names()[2].or_else(|| Some(segments_of_three(&self.event_type)?[2]))
    }

    /// Schema, entity and operation, as far as they were given and differ from the type's segments.
    fn explicit_names(&self) -> [Option<&str>; 3] {
        self.rare
            .as_ref()
            .map_or([None; 3], |rare| [rare.schema.as_deref(), rare.entity.as_deref(), rare.operation.as_deref()])
    }

    /// When the event was built, unless another time was given.
    #[must_use]
    pub fn created_at(&self) -> SystemTime {
        system_time(self.created)
    }

    /// When the first handler started.
    #[must_use]
    pub fn processed_at(&self) -> Option<SystemTime> {
        self.processed_nanos().map(system_time)
    }

    /// When the last delivery ended.
    #[must_use]
    pub fn completed_at(&self) -> Option<SystemTime> {
        self.completed_nanos().map(system_time)
    }

    /// Why the handling failed.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.rare.as_ref()?.error.as_deref()
    }

    /// Named values beside the payload, such as `table_name`; empty if there are none.
    #[must_use]
    pub fn metadata(&self) -> &Map<String, Value> {
        static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        self.rare.as_ref().map_or_else(|| &*NONE, |rare| rare.metadata.entries())
    }

    /// The trace that the event was published in, as a W3C [`traceparent`](https://www.w3.org/TR/trace-context/), from the metadata
    /// entry of that name. `None` also if that is malformed.
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.metadata().get(TRACEPARENT)?.as_str().filter(|text| trace_context::is_traceparent(text))
    }

    /// How many attempts were made after the first one.
    #[must_use]
    pub fn retry_count(&self) -> u32 {
        self.retry_count
    }

    /// The ordering key: a subscription receives the events of one key in the order in which they were published.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    pub(crate) fn created_nanos(&self) -> u64 {
        self.created
    }

    pub(crate) fn processed_nanos(&self) -> Option<u64> {
        self.rare.as_ref()?.processed
    }

    pub(crate) fn completed_nanos(&self) -> Option<u64> {
        self.rare.as_ref()?.completed
    }

    /// Names the instance that publishes the event, unless one is named already. An event that is not needed any more may
    /// have that name: taking it from there costs less than another reference. The caller has checked the text.
    pub(crate) fn adopt(&mut self, instance_id: &Arc<str>, spare: Option<&mut Self>) {
        if self.instance_id.is_none() {
            let spare = spare.and_then(|spare| spare.instance_id.take_if(|name| Arc::ptr_eq(name, instance_id)));
            self.instance_id = spare.or_else(|| Some(Arc::clone(instance_id)));
        }
    }

    /// Marks this copy, which only the broker has, as one that no back end holds.
    pub(crate) fn set_sole_copy(&mut self) {
        self.sole_copy = SoleCopy::new(true);
    }

    /// Adds an entry of the trace's context, unless it breaks a bound of metadata: the event matters more.
    pub(crate) fn carry(&mut self, name: &str, value: String) {
        // A refused one changes nothing.
        let _ = self.rare.get_or_insert_default().metadata.insert(name.to_owned(), Value::String(value));
        self.rare = self.rare.take().and_then(|rare| rare.boxed());
    }

    /// Drops an event that is not needed any more, but for what the next one may use.
    pub(crate) fn recycle(self) {
        self.event_type.recycle();
    }
}

/// The segments of a type that has exactly three of them.
fn segments_of_three(event_type: &EventType) -> Option<[&str; 3]> {
    let mut segments = event_type.segments();
    let three = [segments.next()?, segments.next()?, segments.next()?];
    segments.next().is_none().then_some(three)
}
