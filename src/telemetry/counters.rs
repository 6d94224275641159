//! Counters of one broker, in a shard for each thread.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use crossbeam_utils::CachePadded;
use thread_local::ThreadLocal;

use super::series::SeriesShard;
use crate::base::Tally;
use crate::outcome::{DeliveryTotals, Verdict};

#[derive(Debug, Default)]
pub(crate) struct Counters {
    shards: ThreadLocal<CachePadded<Shard>>,
    /// An earlier value of [`settled`](Self::settled) less [`reopened`](Self::reopened); read again only when too many
    /// events seem in flight.
    pub(crate) settled_seen: AtomicU64,
}

/// The counts of one thread. A later thread goes on with the shard of one that has ended.
#[derive(Debug, Default)]
pub(crate) struct Shard {
    /// Settled deliveries, by verdict.
    verdicts: [Tally; Verdict::COUNT],
    /// Calls of handlers.
    pub(crate) attempts: Tally,
    pub(crate) retries: Tally,
    pub(crate) accepted: Tally,
    pub(crate) completed: Tally,
    pub(crate) failed: Tally,
    /// Completed and failed events that were reopened.
    pub(crate) completed_reopened: Tally,
    pub(crate) failed_reopened: Tally,
    pub(crate) rejected: Tally,
    pub(crate) duplicates: Tally,
    /// Publishes of this thread that have begun and not ended.
    pub(crate) publishing: Tally,
    /// Allocated with the first event that is counted by its type.
    series: OnceLock<Box<SeriesShard>>,
}

impl Shard {
    pub(crate) fn series(&self) -> &SeriesShard {
        self.series.get_or_init(Box::default)
    }

    pub(crate) fn count(&self, verdict: Verdict) {
        self.verdicts[verdict as usize].add_one();
    }
}

impl Counters {
    /// The shard of the current thread.
    pub(crate) fn here(&self) -> &Shard {
        self.shards.get_or_default()
    }

    pub(crate) fn sum(&self, of: impl Fn(&Shard) -> &Tally) -> u64 {
        self.shards.iter().map(|shard| of(shard).value()).fold(0, u64::wrapping_add)
    }

    pub(crate) fn deliveries(&self) -> DeliveryTotals {
        DeliveryTotals::of(|verdict| self.sum(|shard| &shard.verdicts[verdict as usize]))
    }

    pub(crate) fn series(&self) -> impl Iterator<Item = &SeriesShard> + Clone {
        let shards: Vec<_> = self.shards.iter().filter_map(|shard| shard.series.get()).map(|shard| &**shard).collect();
        shards.into_iter()
    }

    /// How often an event became completed or failed. To be read before the sum from which it is subtracted.
    pub(crate) fn settled(&self) -> u64 {
        self.sum(|shard| &shard.completed) + self.sum(|shard| &shard.failed)
    }

    /// How often a completed or failed event was reopened.
    pub(crate) fn reopened(&self) -> u64 {
        self.sum(|shard| &shard.completed_reopened) + self.sum(|shard| &shard.failed_reopened)
    }

    /// Completed events. One that is being reopened may be missing.
    pub(crate) fn completed(&self) -> u64 {
        let completed = self.sum(|shard| &shard.completed);
        completed.saturating_sub(self.sum(|shard| &shard.completed_reopened))
    }

    /// Failed events. One that is being reopened may be missing.
    pub(crate) fn failed(&self) -> u64 {
        let failed = self.sum(|shard| &shard.failed);
        failed.saturating_sub(self.sum(|shard| &shard.failed_reopened))
    }
}
