//! A histogram of durations. A bucket is at most 1/32 of its value wide, so a quantile is at most 3 % too high.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Log2 of the number of buckets per power of two.
const DETAIL: u32 = 5;
const BUCKETS: usize = ((64 - DETAIL + 1) as usize) << DETAIL;

/// The histogram; several threads may count at once.
#[derive(Debug)]
pub(super) struct Latencies {
    counts: Box<[AtomicU64]>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Latencies {
    pub(super) fn count(&self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.counts[bucket(nanos)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn total(&self) -> u64 {
        self.counts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// The duration that `share` (0 to 1) of the counted ones do not exceed; zero if none was counted.
    pub(super) fn quantile(&self, share: f64) -> Duration {
        let rank = (self.total() as f64 * share).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count.load(Ordering::Relaxed);
            if seen >= rank && seen > 0 {
                return Duration::from_nanos(upper_end(index));
            }
        }
        Duration::ZERO
    }
}

fn bucket(nanos: u64) -> usize {
    let shift = (64 - DETAIL).saturating_sub(nanos.leading_zeros()).saturating_sub(1);
    ((shift as usize) << DETAIL) + (nanos >> shift) as usize
}

/// The highest value of a bucket.
fn upper_end(index: usize) -> u64 {
    let row = index >> DETAIL;
    let shift = row.saturating_sub(1);
    let lead = (index - (shift << DETAIL)) as u64;
    (lead << shift) + ((1_u64 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_its_value_and_is_at_most_a_32nd_wide() {
        let values = (0..64).flat_map(|bit| [1_u64 << bit, (1 << bit) + 1, (1 << bit) - 1, (1_u64 << bit) / 3 * 2]);
        for value in values.chain([u64::MAX, 1_000, 123_456_789]) {
            let upper = upper_end(bucket(value));
            assert!(upper >= value && upper - value <= value / 32, "{value} is read as {upper}");
            assert!(bucket(value) < BUCKETS);
        }
    }

    #[test]
    fn quantiles_count_from_the_smallest() {
        let latencies = Latencies::default();
        assert_eq!(latencies.quantile(0.5), Duration::ZERO);
        (1..=20).for_each(|nanos| latencies.count(Duration::from_nanos(nanos)));
        assert_eq!(latencies.total(), 20);
        assert_eq!(latencies.quantile(0.5), Duration::from_nanos(10));
        assert_eq!(latencies.quantile(0.9), Duration::from_nanos(18));
        assert_eq!(latencies.quantile(1.0), Duration::from_nanos(20));
    }
}
