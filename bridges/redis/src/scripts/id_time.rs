//! The use of the time in an event's id: an entry is found by it without an index, and known ids are kept by it.

use std::time::Duration;

use eventbroker_bridge_kit::id_time::IdTime;

/// The most time between the time in an id and the time of its entry: clocks differ, and a buffer may hold events back. An event beyond it
/// has an index entry, and is listed by the time of its entry.
pub(crate) const TOLERANCE: Duration = Duration::from_secs(5);

/// The bucket of known ids that an id is in: the ids of 4 ms.
pub(crate) fn id_bucket(time: &IdTime) -> u128 {
    time.at.as_millis() >> 2
}
