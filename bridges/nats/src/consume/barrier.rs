//! What has come in and is not handed out for a moment, because something that goes before it may be elsewhere.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::pull_buffer::{HOLD, Intake};
use crate::consume::pull_state::{Hold, Source, Unwanted};
use crate::subscriptions::Leg;

/// Deliveries that are remembered as lost.
const REMEMBERED: usize = 16_384;
/// How soon it is looked again whether everything is here, if nothing comes.
const LOOK_EVERY: Duration = Duration::from_millis(100);

impl Intake {
    /// Whether something is not handed out although it is here.
    pub(crate) fn is_on_hold(&self) -> bool {
        self.inner.lock().sources.values().any(|source| source.hold.is_some())
    }

    /// Nobody has asked for deliveries for a while.
    pub(crate) fn is_silent(&self) -> bool {
        self.inner.lock().is_silent()
    }

    /// What was lost on its way comes back; then everything goes on in its order.
    pub(crate) fn expect(&self, key: &str, lost: HashSet<u64>) {
        self.spare(key, &lost);
        if let Some(source) = self.inner.lock().sources.get_mut(key) {
            source.hold = Some(Hold::Lost { is_open: false, lost, until: Instant::now() + HOLD });
            source.look_at_hold();
        }
        self.ring();
    }

    /// These were lost on their way: nobody has begun them.
    pub(crate) fn spare(&self, key: &str, lost: &HashSet<u64>) {
        if let Some(source) = self.inner.lock().sources.get_mut(key) {
            if source.spared.len() + lost.len() > REMEMBERED {
                source.spared.clear();
            }
            lost.iter().for_each(|sequence| *source.spared.entry(*sequence).or_default() += 1);
        }
    }

    /// Something of a consumer goes back to the server, or was never seen: if it has one owner, nothing else is handed out before that is here.
    pub(crate) fn hold(&self, key: &str) {
        if let Some(source) = self.inner.lock().sources.get_mut(key) {
            source.hold();
        }
    }

    /// The consumers with one owner of which it is time to look whether everything is here.
    pub(crate) fn incomplete(&self) -> Vec<Arc<Leg>> {
        let mut inner = self.inner.lock();
        let now = Instant::now();
        let is_due = |source: &mut &mut Source| match &mut source.hold {
            Some(Hold::Whole { looked, .. }) if source.inbox.is_some() => {
                let is_due = looked.is_none_or(|looked| now - looked >= LOOK_EVERY);
                *looked = if is_due { Some(now) } else { *looked };
                is_due
            }
            _ => false,
        };
        let due =
            inner.sources.values_mut().filter_map(|mut source| is_due(&mut source).then(|| Arc::clone(&source.leg)));
        due.collect()
    }

    /// The hold of a consumer with one owner, if there is one.
    pub(crate) fn held(&self, key: &str) -> Option<u64> {
        match self.inner.lock().sources.get(key)?.hold {
            Some(Hold::Whole { number, .. }) => Some(number),
            _ => None,
        }
    }

    /// So much of a consumer is in other hands, as was found under a hold; with nothing it goes on behind the last of the deliveries.
    pub(crate) fn is_missing(&self, key: &str, number: u64, count: usize, last: u64) {
        let mut inner = self.inner.lock();
        let Some(source) = inner.sources.get_mut(key) else { return };
        match &mut source.hold {
            Some(Hold::Whole { number: of, missing, .. }) if *of == number => *missing = Some(count),
            _ => return,
        }
        if count == 0 {
            source.last = source.last.max(Some(last));
            source.go_on();
        }
        drop(inner);
        self.ring();
    }

    /// The partitions of a subscription of which something waits here.
    pub(crate) fn partitions(&self, unit: &str) -> BTreeSet<u32> {
        let inner = self.inner.lock();
        let has_some =
            |source: &&Source| source.unit == unit && !(source.waiting.is_empty() && source.arriving.is_empty());
        inner.sources.values().filter(has_some).filter_map(|source| source.leg.partition).collect()
    }

    /// Reads some consumers no more, or anew, because others may have had them. Returns what has to go back.
    pub(crate) fn drop_all(&self, is_dropped: impl Fn(&Source) -> bool) -> Vec<Unwanted> {
        let mut inner = self.inner.lock();
        let dropped = inner.sources.values_mut().filter(|source| is_dropped(source));
        let unwanted = dropped.flat_map(Source::close).collect();
        inner.sources.retain(|_, source| !is_dropped(source));
        unwanted
    }
}
