//! Counts and durations by source and event type, for metrics.
//!
//! Each thread counts in cells of its own, as in `counters`. A pair of a source and a type has a number, which is found
//! by the hash of the pair: first in a cache of the thread, then in the table of the broker. Only [`MAX_PAIRS`] pairs
//! are numbered and the others are counted together, so memory and series stay bounded whatever types are published.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::base::Tally;
use crate::event::{Event, EventType, Source};

/// How many pairs of a source and a type are counted separately.
pub(crate) const MAX_PAIRS: usize = 100;
/// The number of the cell that counts all other pairs together.
const OTHER: usize = 0;
/// Entries in the cache of each thread: a power of two.
const CACHE_SIZE: usize = 128;
/// The bits of a cache entry that hold the number; the others hold the hash.
const NUMBER: u64 = 0xff;

const _: () = assert!(MAX_PAIRS < NUMBER as usize);

/// The upper bounds of the buckets, in nanoseconds: those of the ResolveSpec event broker.
pub(crate) const BOUNDS: [u64; 11] = {
    const MS: u64 = 1_000_000;
    [MS, 5 * MS, 10 * MS, 25 * MS, 50 * MS, 100 * MS, 250 * MS, 500 * MS, 1_000 * MS, 2_500 * MS, 5_000 * MS]
};

/// A histogram of durations.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS.len() + 1],
    sum: u64,
}

impl Histogram {
    /// The upper bounds of the buckets. One more bucket follows, without a bound.
    pub const BOUNDS: [Duration; BOUNDS.len()] = {
        let mut bounds = [Duration::ZERO; BOUNDS.len()];
        let mut bucket = 0;
        while bucket < BOUNDS.len() {
            bounds[bucket] = Duration::from_nanos(BOUNDS[bucket]);
            bucket += 1;
        }
        bounds
    };

    /// The number of durations in each bucket; one count more than there are bounds.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// The number of durations in all buckets.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of all durations.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.sum)
    }
}

/// A histogram that one thread writes.
#[derive(Debug, Default)]
struct Times {
    counts: [Tally; BOUNDS.len() + 1],
    sum: Tally,
}

impl Times {
    fn note(&self, nanos: u64) {
        let bucket = BOUNDS.iter().position(|bound| nanos <= *bound).unwrap_or(BOUNDS.len());
        self.counts[bucket].add_one();
        self.sum.add(nanos);
    }

    fn add_to(&self, total: &mut Histogram) {
        total.counts.iter_mut().zip(&self.counts).for_each(|(total, count)| *total += count.value());
        total.sum = total.sum.wrapping_add(self.sum.value());
    }
}

/// The counts of one thread for one pair.
#[derive(Debug, Default)]
struct Cell {
    published: Tally,
    completed: Tally,
    failed: Tally,
    processing: Times,
}

/// The counts of one thread by pair. Only that thread may write them.
#[derive(Debug)]
pub(crate) struct SeriesShard {
    /// Hashes of pairs, each with the number of the pair in its lowest bits; 0 = no entry.
    cache: Box<[AtomicU64; CACHE_SIZE]>,
    cells: [OnceLock<Box<Cell>>; MAX_PAIRS + 1],
    /// From the creation of an event to its last verdict.
    whole: Times,
}

impl Default for SeriesShard {
    fn default() -> Self {
        Self {
            cache: Box::new([const { AtomicU64::new(0) }; CACHE_SIZE]),
            cells: [const { OnceLock::new() }; MAX_PAIRS + 1],
            whole: Times::default(),
        }
    }
}

/// The counts of a broker for one source and event type.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TypeMetrics {
    /// The source and the type; `None` for all pairs that are not counted separately.
    pub of: Option<(Source, EventType)>,
    /// Events that were accepted.
    pub published: u64,
    /// How often an event became completed.
    ///
    /// More than once for one event if its deliveries come in from a back end one after the other.
    pub completed: u64,
    /// How often an event became failed.
    pub failed: u64,
    /// From the first attempt of an event to its last verdict.
    ///
    /// Includes retries and the waits between them. Events without a delivery are not counted.
    pub processing: Histogram,
}

/// The numbers of the pairs of one broker.
#[derive(Debug, Default)]
pub(crate) struct Series {
    numbers: DashMap<u64, usize>,
    names: Mutex<Vec<(Source, EventType)>>,
    full: AtomicBool,
}

impl Series {
    pub(crate) fn published(&self, here: &SeriesShard, event: &Event) {
        self.cell(here, event).published.add_one();
    }

    /// Counts a settled event. `took` is the time since its first attempt, if there was one, and `whole` the time since
    /// its creation, both in nanoseconds.
    pub(crate) fn settled(&self, here: &SeriesShard, event: &Event, failed: bool, took: Option<u64>, whole: u64) {
        let cell = self.cell(here, event);
        if failed { &cell.failed } else { &cell.completed }.add_one();
        if let Some(took) = took {
            cell.processing.note(took);
        }
        here.whole.note(whole);
    }

    fn cell<'a>(&self, here: &'a SeriesShard, event: &Event) -> &'a Cell {
        let hash = hash_of(event.source(), event.event_type());
        let cached = &here.cache[(hash >> NUMBER.count_ones()) as usize % CACHE_SIZE];
        let entry = cached.load(Ordering::Relaxed);
        let number = if entry & !NUMBER == hash {
            (entry & NUMBER) as usize
        } else {
            let number = self.number(hash, event);
            cached.store(hash | number as u64, Ordering::Relaxed);
            number
        };
        here.cells[number].get_or_init(Box::default)
    }

    #[cold]
    fn number(&self, hash: u64, event: &Event) -> usize {
        if let Some(number) = self.numbers.get(&hash) {
            return *number;
        }
        if self.full.load(Ordering::Relaxed) {
            return OTHER;
        }
        let mut names = self.names.lock();
        if names.len() == MAX_PAIRS {
            self.full.store(true, Ordering::Relaxed);
            return self.numbers.get(&hash).map_or(OTHER, |number| *number);
        }
        *self.numbers.entry(hash).or_insert_with(|| {
            names.push((event.source(), event.event_type().clone()));
            names.len()
        })
    }

    /// Sums the counts of all threads: each pair, in the order in which they were first counted, and then the others
    /// together, if there are any. And the durations of all events.
    pub(crate) fn sum<'a>(
        &self,
        shards: impl Iterator<Item = &'a SeriesShard> + Clone,
    ) -> (Vec<TypeMetrics>, Histogram) {
        let names = self.names.lock().clone();
        let of = |number: usize| number.checked_sub(1).map(|at| names[at].clone());
        let numbers = (1..=names.len()).chain([OTHER]);
        let sums =
            numbers.map(|number| sum_cells(of(number), shards.clone().filter_map(|shard| shard.cells[number].get())));
        let counted = |sum: &TypeMetrics| sum.of.is_some() || sum.published + sum.completed + sum.failed > 0;
        let types = sums.filter(counted).collect();
        let mut whole = Histogram::default();
        shards.for_each(|shard| shard.whole.add_to(&mut whole));
        (types, whole)
    }
}

fn sum_cells<'a>(of: Option<(Source, EventType)>, cells: impl Iterator<Item = &'a Box<Cell>>) -> TypeMetrics {
    let mut sum = TypeMetrics { of, published: 0, completed: 0, failed: 0, processing: Histogram::default() };
    for cell in cells {
        sum.published += cell.published.value();
        sum.completed += cell.completed.value();
        sum.failed += cell.failed.value();
        cell.processing.add_to(&mut sum.processing);
    }
    sum
}

/// The hash of a pair, with the bits of its number zero. Two pairs with the same hash are counted as the first one.
fn hash_of(source: Source, event_type: &EventType) -> u64 {
    let hash = event_type.hash64().wrapping_add((source as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // Never 0, which marks an empty cache entry.
    hash & !NUMBER | (NUMBER + 1)
}
