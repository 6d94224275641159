//! The content of an event, without its origin and progress. Two events of one id are duplicates if it is equal.

use std::hash::Hasher;

use serde_json::Value;

use super::{Event, trace_context};

impl Event {
    /// Whether two events have the same content.
    /// Ignores id, progress, creation time and publishing instance, and the trace context in the metadata
    /// (`traceparent`, `tracestate` and `baggage`).
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.source == other.source
            && self.event_type == other.event_type
            && self.payload == other.payload
            && self.key == other.key
            && self.user_id == other.user_id
            && self.session_id() == other.session_id()
            && self.explicit_names() == other.explicit_names()
            && self.content_metadata().eq(other.content_metadata())
    }

    /// Hashes the content that [`same_content`](Self::same_content) compares.
    /// For back ends that store a hash instead of the content. Calls only [`write`](Hasher::write), with the same bytes
    /// on every machine, so the result depends only on the hasher.
    pub fn hash_content(&self, hasher: &mut impl Hasher) {
        let mut feed = |part: Option<&[u8]>| {
            hasher.write(&part.map_or(u64::MAX, |part| part.len() as u64).to_le_bytes());
            hasher.write(part.unwrap_or_default());
        };
        feed(Some(self.source.as_str().as_bytes()));
        feed(Some(self.event_type.as_str().as_bytes()));
        feed(Some(self.payload.as_bytes()));
        feed(self.key().map(str::as_bytes));
        feed(Some(&self.user_id.to_le_bytes()));
        feed(self.session_id().map(str::as_bytes));
        self.explicit_names().iter().for_each(|name| feed(name.map(str::as_bytes)));
        for (name, value) in self.content_metadata() {
            feed(Some(name.as_bytes()));
            feed(Some(value.to_string().as_bytes()));
        }
    }

    /// The metadata without the trace context.
    fn content_metadata(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.metadata().iter().filter(|(name, _)| !trace_context::is_context(name))
    }
}
