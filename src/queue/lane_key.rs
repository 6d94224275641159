//! The key of a lane.

use crate::base::hash_text;

/// The hash of an event's key. Two keys with the same hash share a lane, which keeps the order of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LaneKey(u64);

impl LaneKey {
    /// The only lane of an ordered subscription.
    pub(crate) const ALL: Self = Self(0);

    pub(crate) fn of(key: &str) -> Self {
        Self(hash_text(key))
    }
}
