//! Which partition of a divided stream an event belongs to: the same for every back end, in every version, on every machine.

use xxhash_rust::xxh3::xxh3_64;

use crate::event::Event;

/// Which of so many partitions an event belongs to, counted from 0: the XXH3 hash (64 bits) of its key, or of its id if it has none, modulo
/// their number. With none there is one, 0.
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
    // Less than their number, which fits.
    (hash % u64::from(partitions)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Source;

    /// Streams that were divided by an earlier version are read by this one.
    #[test]
    fn a_key_stays_where_it_is() {
        let of = |key: &str| {
            let event = Event::builder(Source::System, "work.it").key(key).build().expect("a valid event");
            partition_of(&event, 64)
        };
        assert_eq!(["a", "abc", "key 1", "customer/42"].map(of), [31, 16, 0, 40]);
    }
}
