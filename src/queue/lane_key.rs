//! The key of a lane.

use crate::base::hash_text;

/// What names a lane: the hash of a key. Should two keys have the same, they share the lane, which keeps the order of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LaneKey(u64);

impl LaneKey {
    /// The one lane of a subscription that keeps the order of everything.
    pub(crate) const ALL: Self = Self(0);

    pub(crate) fn of(key: &str) -> Self {
        Self(hash_text(key))
    }
}
