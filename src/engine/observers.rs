//! The `on_settled` observers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use crate::outcome::Settled;
use crate::subscription::guarded;

type Observer = Arc<dyn Fn(&Settled<'_>) + Send + Sync>;

/// The observers of one broker. They are added and never removed.
#[derive(Default)]
pub(crate) struct Observers {
    list: ArcSwap<Vec<Observer>>,
    any: AtomicBool,
}

impl Observers {
    pub(crate) fn add(&self, observer: impl Fn(&Settled<'_>) + Send + Sync + 'static) {
        let observer: Observer = Arc::new(observer);
        self.list.rcu(|observers| {
            let mut observers = Vec::clone(observers);
            observers.push(Arc::clone(&observer));
            observers
        });
        self.any.store(true, Ordering::Release);
    }

    /// Calls every observer. A panic in one is logged.
    pub(super) fn notify(&self, settled: &Settled<'_>) {
        if !self.any.load(Ordering::Relaxed) {
            return;
        }
        for observer in self.list.load().iter() {
            if let Err(panic) = guarded(|| observer(settled)) {
                tracing::error!(subscription = settled.name, "an on_settled observer {panic}");
            }
        }
    }
}
