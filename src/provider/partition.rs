//! The partition of an event: the same for every back end, in every version, on every machine.

use xxhash_rust::xxh3::xxh3_64;

use crate::event::Event;

/// Returns the partition of an event, from 0 to `partitions - 1`.
///
/// It is the 64-bit XXH3 hash of the event's key, or of its id if it has no key, modulo `partitions`. With `partitions`
/// 0 every event belongs to partition 0.
///
/// ```
/// use eventbroker::provider::partition_of;
/// use eventbroker::{Event, Source};
///
/// let event = |key: &str| Event::builder(Source::System, "shop.orders.create").key(key).build();
/// assert_eq!(partition_of(&event("customer 7")?, 8), partition_of(&event("customer 7")?, 8));
/// assert_eq!(partition_of(&event("customer 7")?, 0), 0);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn partition_of(event: &Event, partitions: u32) -> u32 {
    if partitions == 0 {
        return 0;
    }
    let hash = match event.key() {
        Some(key) => xxh3_64(key.as_bytes()),
        None => xxh3_64(event.id().to_string().as_bytes()),
    };
    // Less than `partitions`, so it fits.
    (hash % u64::from(partitions)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Source;

    /// This version reads streams that an earlier one has partitioned.
    #[test]
    fn the_partition_of_a_key_never_changes() {
        let of = |key: &str| {
            let event = Event::builder(Source::System, "work.it").key(key).build().expect("a valid event");
            partition_of(&event, 64)
        };
        assert_eq!(["a", "abc", "key 1", "customer/42"].map(of), [31, 16, 0, 40]);
    }
}
