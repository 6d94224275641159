//! What wakes the ingest while it waits for something to hand out.

use std::time::{Duration, Instant};

use super::pull_buffer::{Inner, Intake};

/// Of partitions that had no room for more, so many deliveries are settled before the ingest looks at once: a step each would cost more than it
/// brings in.
const MANY: usize = 64;
/// When fewer are settled, it looks after this.
const SOON: Duration = Duration::from_millis(10);

/// What the ingest has not seen yet.
#[derive(Debug, Default)]
pub(super) struct Bell {
    /// Somebody wants it to return.
    is_woken: bool,
    /// Something has changed.
    is_rung: bool,
    /// Deliveries of partitions that were settled, and since when there are some.
    settled: usize,
    since: Option<Instant>,
}

impl Intake {
    /// Somebody wants the ingest to look again.
    pub(crate) fn wake(&self) {
        self.inner.lock().bell.is_woken = true;
        self.heard.notify_all();
    }

    /// Something has changed.
    pub(crate) fn ring(&self) {
        self.inner.lock().ring();
        self.heard.notify_all();
    }

    /// There is room for so many more deliveries of partitions.
    pub(crate) fn make_room(&self, count: usize) {
        if count == 0 {
            return;
        }
        let mut inner = self.inner.lock();
        let (had, now) = (inner.bell.settled, Instant::now());
        inner.bell.settled += count;
        inner.bell.since.get_or_insert(now);
        if had == 0 || (had < MANY && had + count >= MANY) {
            drop(inner);
            self.heard.notify_all();
        }
    }

    /// Waits until something has come, or there is room for more, or somebody calls. True if it should be returned at once.
    pub(crate) fn wait(&self, until: Instant) -> bool {
        let mut inner = self.inner.lock();
        while !inner.has_news() {
            let until = inner.bell.since.map_or(until, |since| until.min(since + SOON));
            if self.heard.wait_until(&mut inner, until).timed_out() {
                break;
            }
        }
        std::mem::take(&mut inner.bell).is_woken
    }
}

impl Inner {
    pub(super) fn ring(&mut self) {
        self.bell.is_rung = true;
    }

    fn has_news(&self) -> bool {
        let Bell { is_woken, is_rung, settled, .. } = self.bell;
        let has_some = || {
            self.sources.values().any(|source| source.hold.is_none() && !source.waiting.is_empty() && source.target > 0)
        };
        is_woken || is_rung || settled >= MANY || self.problem.is_some() || self.is_in_doubt || has_some()
    }
}
