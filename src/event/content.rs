//! What an event says, whenever and by whom it was published: what makes two events of one id the same.

use std::hash::Hasher;

use serde_json::Value;

use super::{Event, trace_context};

impl Event {
    /// Whether both say that the same happened. How far their handling has come, when they were made, and which
    /// instance published them makes no difference, nor does the context of the trace (`traceparent`, `tracestate` and `baggage` in the
    /// metadata).
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        self.source == other.source
            && self.event_type == other.event_type
            && self.payload == other.payload
            && self.key == other.key
            && self.user_id == other.user_id
            && self.session_id() == other.session_id()
            && self.explicit_names() == other.explicit_names()
            && self.says().eq(other.says())
    }

    /// Feeds a hasher with what [`same_content`](Self::same_content) compares, for back ends that can't keep that itself: by
    /// [`write`](Hasher::write) alone and the same on every machine, so that what comes out depends only on the hasher.
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
        for (name, value) in self.says() {
            feed(Some(name.as_bytes()));
            feed(Some(value.to_string().as_bytes()));
        }
    }

    /// The metadata without the context of the trace.
    fn says(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.metadata().iter().filter(|(name, _)| !trace_context::is_context(name))
    }
}
