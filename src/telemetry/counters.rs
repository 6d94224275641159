//! Counters of the broker, one shard per thread. Counters; never decides.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU64;

use crossbeam_utils::CachePadded;
use thread_local::ThreadLocal;

use super::series::SeriesShard;
use crate::base::Tally;
use crate::outcome::{DeliveryTotals, Verdict};

/// Counters of the whole broker.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    shards: ThreadLocal<CachePadded<Shard>>,
    /// A value that [`settled`](Self::settled) had; read again only when too many events seem in flight.
    pub(crate) settled_seen: AtomicU64,
}

/// One thread's share of the counts. (The next thread takes over what an ended one has left.)
#[derive(Debug, Default)]
pub(crate) struct Shard {
    done: Tally,
    skipped: Tally,
    dead: Tally,
    dropped: Tally,
    cancelled: Tally,
    /// Calls of handlers.
    pub(crate) attempts: Tally,
    pub(crate) retries: Tally,
    pub(crate) accepted: Tally,
    pub(crate) completed: Tally,
    pub(crate) failed: Tally,
    /// Completed and failed events that were opened again.
    pub(crate) completed_reopened: Tally,
    pub(crate) failed_reopened: Tally,
    pub(crate) rejected: Tally,
    pub(crate) duplicates: Tally,
    /// Publishes that are under way.
    pub(crate) publishing: Tally,
    /// Made with the first event that is counted by its type.
    series: OnceLock<Box<SeriesShard>>,
}

impl Shard {
    pub(crate) fn series(&self) -> &SeriesShard {
        self.series.get_or_init(Box::default)
    }

    pub(crate) fn count(&self, verdict: Verdict) {
        match verdict {
            Verdict::Done => &self.done,
            Verdict::Skipped => &self.skipped,
            Verdict::Dead => &self.dead,
            Verdict::Dropped => &self.dropped,
            Verdict::Cancelled => &self.cancelled,
        }
        .add_one();
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
        DeliveryTotals {
            done: self.sum(|shard| &shard.done),
            skipped: self.sum(|shard| &shard.skipped),
            dead: self.sum(|shard| &shard.dead),
            dropped: self.sum(|shard| &shard.dropped),
            cancelled: self.sum(|shard| &shard.cancelled),
        }
    }

    /// What the threads counted by type.
    pub(crate) fn series(&self) -> impl Iterator<Item = &SeriesShard> + Clone {
        let shards: Vec<_> = self.shards.iter().filter_map(|shard| shard.series.get()).map(|shard| &**shard).collect();
        shards.into_iter()
    }

    /// How often an event became completed or failed. Read this before what it is subtracted from.
    pub(crate) fn settled(&self) -> u64 {
        self.sum(|shard| &shard.completed) + self.sum(|shard| &shard.failed)
    }

    /// How often one became open again.
    pub(crate) fn reopened(&self) -> u64 {
        self.sum(|shard| &shard.completed_reopened) + self.sum(|shard| &shard.failed_reopened)
    }

    /// Events that are completed; while one is reopened it may be missing.
    pub(crate) fn completed(&self) -> u64 {
        let completed = self.sum(|shard| &shard.completed);
        completed.saturating_sub(self.sum(|shard| &shard.completed_reopened))
    }

    /// Events that are failed; while one is reopened it may be missing.
    pub(crate) fn failed(&self) -> u64 {
        let failed = self.sum(|shard| &shard.failed);
        failed.saturating_sub(self.sum(|shard| &shard.failed_reopened))
    }
}
