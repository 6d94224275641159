//! The event and its parts, each in a file of its own: [`builder`] checks and builds one, [`content`] compares two,
//! [`progress`] sets its status, [`json`] encodes and decodes it.

mod bounds;
mod builder;
mod content;
mod depth;
mod event_type;
mod from_text;
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

/// Joins the parts of an event type: `schema.entity.operation`.
///
/// ```
/// assert_eq!(eventbroker::event_type("public", "users", "create"), "public.users.create");
/// ```
#[must_use]
pub fn event_type(schema: &str, entity: &str, operation: &str) -> String {
    format!("{schema}.{entity}.{operation}")
}

/// An event: immutable once built, and shared by all handlers without a copy.
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
// An event is moved into the broker's record, so fields that few events have are boxed to keep it small.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    id: EventId,
    event_type: EventType,
    payload: Payload,
    key: Option<Arc<str>>,
    instance_id: Option<Arc<str>>,
    /// In nanoseconds since 1970, as all times here.
    created: u64,
    /// 0 = none, as in the JSON.
    user_id: i64,
    retry_count: u32,
    source: Source,
    status: Status,
    sole_copy: SoleCopy,
    rare: Option<Box<Rare>>,
}

const _: () = assert!(size_of::<Event>() <= 128);

/// The fields that few events have. An event with only default values here has no box, so that equal events compare
/// equal.
#[derive(Debug, Clone, Default, PartialEq)]
struct Rare {
    session_id: Option<Box<str>>,
    /// Schema, entity and operation are set only if they differ from the segments of the type.
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
    /// The longest id and the longest type, in bytes. Both need at least 1.
    pub const MAX_ID_BYTES: usize = bounds::MAX_TEXT_BYTES;
    /// The longest key, session, instance, schema, entity or operation, in bytes.
    pub const MAX_TEXT_BYTES: usize = bounds::MAX_TEXT_BYTES;
    /// The most metadata entries.
    pub const MAX_METADATA_ENTRIES: usize = metadata::MAX_ENTRIES;
    /// The longest name of a metadata entry, in bytes. At least 1.
    pub const MAX_METADATA_KEY_BYTES: usize = bounds::MAX_TEXT_BYTES;
    /// The deepest nesting of a metadata value; one open bracket is depth 1.
    pub const MAX_METADATA_DEPTH: usize = bounds::MAX_DEPTH;
    /// The largest metadata, as JSON, in bytes.
    pub const MAX_METADATA_BYTES: usize = metadata::MAX_BYTES;

    /// Starts to build an event. Source and type are required; all else has a default.
    /// The type is a `&str`, a `String` or an [`EventType`]. [`EventBuilder::build`] reports an invalid one.
    pub fn builder(source: Source, event_type: impl TryInto<EventType, Error: Into<Invalid>>) -> EventBuilder {
        EventBuilder::new(source, event_type)
    }

    /// The id; a new UUID of version 7 unless one was given.
    #[must_use]
    pub fn id(&self) -> &EventId {
        &self.id
    }

    /// Whether a back end may already store an event with this id.
    /// False if [`build`](EventBuilder::build) generated the id, and the event has since been neither cloned nor
    /// written as JSON: then a back end need not look the id up. An event that a [`Mirror`](crate::provider::Mirror)
    /// receives has the value that it had when it was published.
    #[must_use]
    pub fn may_exist(&self) -> bool {
        !self.sole_copy.get()
    }

    /// The kind of component that the event comes from.
    #[must_use]
    pub fn source(&self) -> Source {
        self.source
    }

    /// The type, which is matched against patterns.
    #[must_use]
    pub fn event_type(&self) -> &EventType {
        &self.event_type
    }

    /// The status when this copy was made; `Pending` for an event that was just built.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// The payload; null unless one was set.
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

    /// The user that the event is about or comes from.
    #[must_use]
    pub fn user_id(&self) -> Option<i64> {
        (self.user_id != 0).then_some(self.user_id)
    }

    /// The session that the event comes from.
    #[must_use]
    pub fn session_id(&self) -> Option<&str> {
        self.rare.as_ref()?.session_id.as_deref()
    }

    /// The instance that published the event first; `None` before it is published.
    #[must_use]
    pub fn instance_id(&self) -> Option<&str> {
        self.instance_id.as_deref()
    }

    /// The schema that was set, else the first segment of a type with three.
    #[must_use]
    pub fn schema(&self) -> Option<&str> {
        self.explicit_names()[0].or_else(|| Some(segments_of_three(&self.event_type)?[0]))
    }

    /// The entity that was set, else the second segment of a type with three.
    #[must_use]
    pub fn entity(&self) -> Option<&str> {
        self.explicit_names()[1].or_else(|| Some(segments_of_three(&self.event_type)?[1]))
    }

    /// The operation that was set, else the third segment of a type with three.
    #[must_use]
    pub fn operation(&self) -> Option<&str> {
        self.explicit_names()[2].or_else(|| Some(segments_of_three(&self.event_type)?[2]))
    }

    /// Schema, entity and operation, if they were set and differ from the type's segments.
    fn explicit_names(&self) -> [Option<&str>; 3] {
        self.rare
            .as_ref()
            .map_or([None; 3], |rare| [rare.schema.as_deref(), rare.entity.as_deref(), rare.operation.as_deref()])
    }

    /// When the event was built, unless another time was set.
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

    /// The error of the delivery that failed.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.rare.as_ref()?.error.as_deref()
    }

    /// Named values beside the payload, such as `table_name`. May be empty.
    #[must_use]
    pub fn metadata(&self) -> &Map<String, Value> {
        static NONE: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
        self.rare.as_ref().map_or_else(|| &*NONE, |rare| rare.metadata.entries())
    }

    /// The trace in which the event was published, as a W3C `traceparent`.
    /// Read from the metadata entry of that name; `None` if the entry is absent or not a valid
    /// [`traceparent`](https://www.w3.org/TR/trace-context/).
    #[must_use]
    pub fn traceparent(&self) -> Option<&str> {
        self.metadata().get(TRACEPARENT)?.as_str().filter(|text| trace_context::is_traceparent(text))
    }

    /// The number of attempts after the first.
    #[must_use]
    pub fn retry_count(&self) -> u32 {
        self.retry_count
    }

    /// The ordering key. A subscription receives events of one key in publish order.
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

    /// Sets the publishing instance, unless one is set. Takes the reference to the name from `spare`, an event that is
    /// no longer needed, if it has the same one: cheaper than another reference. The caller has checked the text.
    pub(crate) fn adopt(&mut self, instance_id: &Arc<str>, spare: Option<&mut Self>) {
        if self.instance_id.is_none() {
            let spare = spare.and_then(|spare| spare.instance_id.take_if(|name| Arc::ptr_eq(name, instance_id)));
            self.instance_id = spare.or_else(|| Some(Arc::clone(instance_id)));
        }
    }

    /// Marks this copy, which only the broker has, as one whose id no back end stores yet.
    pub(crate) fn set_sole_copy(&mut self) {
        self.sole_copy = SoleCopy::new(true);
    }

    /// Adds an entry of the trace context. Skips one that breaks a bound of metadata, so that the publish still
    /// succeeds.
    pub(crate) fn carry(&mut self, name: &str, value: String) {
        // A refused entry changes nothing.
        let _ = self.rare.get_or_insert_default().metadata.insert(name.to_owned(), Value::String(value));
        self.rare = self.rare.take().and_then(|rare| rare.boxed());
    }

    /// Drops an event, and keeps the reference to its type for the next event of this thread.
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
