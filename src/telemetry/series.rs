//! Counts and times by source and event type, for metrics. Counts; never decides.
//!
//! Each thread counts in cells of its own, as in `stats`. Which cell belongs to a type is looked up by the hash of the type: first in
//! what this thread remembers, then in what the broker has numbered. Only so many types are numbered; the rest count together, so no
//! flood of types can make this grow.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use dashmap::DashMap;
use parking_lot::Mutex;

use crate::base::Tally;
use crate::event::{Event, EventType, Source};

/// How many pairs of a source and a type are counted by themselves.
pub(crate) const MAX_PAIRS: usize = 100;
/// What counts the others together.
const OTHER: usize = 0;
/// How many pairs each thread remembers: a power of two.
const REMEMBERED: usize = 128;
/// How a hash and a number share a word: the number has the lower bits.
const NUMBER: u64 = 0xff;

const _: () = assert!(MAX_PAIRS < NUMBER as usize);

/// The bounds of the buckets, in nanoseconds: those of the ResolveSpec event broker.
pub(crate) const BOUNDS: [u64; 11] = {
    const MS: u64 = 1_000_000;
    [MS, 5 * MS, 10 * MS, 25 * MS, 50 * MS, 100 * MS, 250 * MS, 500 * MS, 1_000 * MS, 2_500 * MS, 5_000 * MS]
};

/// How long something took, by buckets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS.len() + 1],
    sum: u64,
}

impl Histogram {
    /// The upper bounds of the buckets; the last bucket, after these, has none.
    pub const BOUNDS: [Duration; BOUNDS.len()] = {
        let mut bounds = [Duration::ZERO; BOUNDS.len()];
        let mut bucket = 0;
        while bucket < BOUNDS.len() {
            bounds[bucket] = Duration::from_nanos(BOUNDS[bucket]);
            bucket += 1;
        }
        bounds
    };

    /// How many fell into each bucket; one more than there are bounds.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// How many there are in all.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The sum of what they took.
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

/// What one thread counted of one pair.
#[derive(Debug, Default)]
struct Cell {
    published: Tally,
    completed: Tally,
    failed: Tally,
    processing: Times,
}

/// What one thread counted. Only that thread may count here.
#[derive(Debug)]
pub(crate) struct SeriesShard {
    /// The hash of a pair, with its number in place of the lowest bits; 0 = none.
    remembered: Box<[AtomicU64; REMEMBERED]>,
    cells: [OnceLock<Box<Cell>>; MAX_PAIRS + 1],
    /// From publish to done.
    whole: Times,
}

impl Default for SeriesShard {
    fn default() -> Self {
        Self {
            remembered: Box::new([const { AtomicU64::new(0) }; REMEMBERED]),
            cells: [const { OnceLock::new() }; MAX_PAIRS + 1],
            whole: Times::default(),
        }
    }
}

/// What a broker counted of one source and type.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TypeMetrics {
    /// The source and the type; nothing stands for all those that are not counted by themselves.
    pub of: Option<(Source, EventType)>,
    /// Events that were accepted.
    pub published: u64,
    /// How often one became completed: with deliveries from a back end, each of which comes by itself, that may be more than once.
    pub completed: u64,
    /// How often one became failed.
    pub failed: u64,
    /// From the first attempt to the last verdict of each, retries and the time between them included. An event that nobody receives
    /// is not in it.
    pub processing: Histogram,
}

/// Numbers the pairs of a broker.
#[derive(Debug, Default)]
pub(crate) struct Series {
    numbers: DashMap<u64, usize>,
    names: Mutex<Vec<(Source, EventType)>>,
    full: AtomicBool,
}

impl Series {
    /// Counts an event that was accepted.
    pub(crate) fn published(&self, here: &SeriesShard, event: &Event) {
        self.cell(here, event).published.add_one();
    }

    /// Counts an event that is done, with how long its deliveries took, if there were any, and all of it. In nanoseconds.
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
        let remembered = &here.remembered[(hash >> NUMBER.count_ones()) as usize % REMEMBERED];
        let seen = remembered.load(Ordering::Relaxed);
        let number = if seen & !NUMBER == hash {
            (seen & NUMBER) as usize
        } else {
            let number = self.number(hash, event);
            remembered.store(hash | number as u64, Ordering::Relaxed);
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

    /// Adds up what all threads counted: each pair, in the order in which they came, and then the others together, if there are any.
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

/// The hash of a pair, with the bits of its number free. Two pairs of the same hash would be counted as the first of them.
fn hash_of(source: Source, event_type: &EventType) -> u64 {
    let hash = event_type.hash64().wrapping_add((source as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    // Never 0, which stands for nothing.
    hash & !NUMBER | (NUMBER + 1)
}
