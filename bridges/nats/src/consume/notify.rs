//! The wake-ups of the ingest, which waits for messages to hand out.

use std::time::{Duration, Instant};

use super::pull_buffer::{Inner, PullBuffer};
use super::pull_state::PullState;

/// The ingest wakes at once when this number of messages of partitions without room was settled: a step for each would cost more than it brings.
const MANY: usize = 64;
/// When fewer were settled, the ingest wakes after this time.
const SOON: Duration = Duration::from_millis(10);

/// The news that the ingest has not seen.
#[derive(Debug, Default)]
pub(super) struct Notify {
    /// The broker wants the ingest to return.
    is_woken: bool,
    has_changed: bool,
    /// The number of settled messages, and since when there are some.
    settled: usize,
    since: Option<Instant>,
}

impl PullBuffer {
    /// Makes the ingest return to the broker.
    pub(crate) fn wake(&self) {
        self.inner.lock().notify.is_woken = true;
        self.changed.notify_all();
    }

    /// Wakes the ingest, which then takes the next step.
    pub(crate) fn notify(&self) {
        self.inner.lock().notify();
        self.changed.notify_all();
    }

    /// Messages were settled, so there is room for more.
    pub(crate) fn make_room(&self, count: usize) {
        if count == 0 {
            return;
        }
        let mut inner = self.inner.lock();
        let (had, now) = (inner.notify.settled, Instant::now());
        inner.notify.settled += count;
        inner.notify.since.get_or_insert(now);
        if had == 0 || (had < MANY && had + count >= MANY) {
            drop(inner);
            self.changed.notify_all();
        }
    }

    /// Waits for news, at most until `until`. True if the ingest should return to the broker.
    pub(crate) fn wait(&self, until: Instant) -> bool {
        let mut inner = self.inner.lock();
        while !inner.has_news() {
            let until = inner.notify.since.map_or(until, |since| until.min(since + SOON));
            if self.changed.wait_until(&mut inner, until).timed_out() {
                break;
            }
        }
        std::mem::take(&mut inner.notify).is_woken
    }
}

impl Inner {
    pub(super) fn notify(&mut self) {
        self.notify.has_changed = true;
    }

    fn has_news(&self) -> bool {
        let Notify { is_woken, has_changed, settled, .. } = self.notify;
        let is_news = is_woken || has_changed || settled >= MANY || self.problem.is_some() || self.is_in_doubt;
        is_news || self.states.values().any(PullState::has_message_to_take)
    }
}
