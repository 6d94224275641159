//! Lookups in a broker: one event and its status, pages of events, statistics and metrics.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::Broker;
use crate::base::system_time;
use crate::engine::Phase;
use crate::event::{Event, EventId};
use crate::outcome::{BackendError, Filter, Page, Stats, StoreStats, SubscriptionStats};
use crate::subscription::Subscription;
use crate::telemetry::metrics::Metrics;

impl Broker {
    /// The event with this id and its status.
    ///
    /// It comes from the back end's store in one round trip, or from this process, where reading keeps it for longer.
    /// Without a back end's store, the call first evicts completed and failed events beyond `max_events`.
    ///
    /// # Errors
    /// [`BackendError`] if the back end fails; never with the memory provider.
    pub fn get(&self, id: &EventId) -> Result<Option<Event>, BackendError> {
        let engine = self.engine();
        match engine.bridge.as_ref().and_then(|bridge| bridge.store.as_ref()) {
            // The back end knows the verdicts of other instances, but may not have received the event yet.
            Some(store) => Ok(store.get(id)?.or_else(|| engine.store.get(id))),
            None => {
                engine.fit_store();
                Ok(engine.store.get(id))
            }
        }
    }

    /// A page of events in the order of their ids.
    ///
    /// It comes from the back end's store in one round trip. Without one, it comes from this process, and the call
    /// first evicts events as [`get`](Self::get) does. Unlike `get`, listing does not keep events for longer.
    ///
    /// # Errors
    /// [`BackendError`] if the back end fails; never with the memory provider.
    pub fn list(&self, filter: &Filter) -> Result<Page, BackendError> {
        let engine = self.engine();
        match engine.bridge.as_ref().and_then(|bridge| bridge.store.as_ref()) {
            Some(store) => store.list(filter),
            None => {
                engine.fit_store();
                Ok(engine.store.list(filter))
            }
        }
    }

    /// The number of events in the store of this process, by status.
    ///
    /// First evicts completed and failed events beyond `max_events`. Visits each event, which takes milliseconds per
    /// hundred thousand.
    pub fn store_stats(&self) -> StoreStats {
        let engine = self.engine();
        engine.fit_store();
        engine.store.stats()
    }

    /// A snapshot of all counts and times, for monitoring.
    ///
    /// Does not block, and does not delay publishers noticeably. Visits every event of the store, at about 50 ns each,
    /// and evicts events as [`store_stats`](Self::store_stats) does.
    pub fn metrics(&self) -> Metrics {
        let engine = self.engine();
        let (types, whole) = engine.telemetry.series.sum(engine.telemetry.counters.series());
        let oldest = engine.store.oldest_open().map(system_time);
        Metrics {
            stats: self.stats(),
            store: self.store_stats(),
            types,
            whole,
            oldest_open: oldest.map(|made| SystemTime::now().duration_since(made).unwrap_or_default()),
        }
    }

    /// The totals of this broker, and the state of each subscription.
    ///
    /// Does not block, and visits no event, so it is cheap.
    pub fn stats(&self) -> Stats {
        let engine = self.engine();
        // The settled counts are read before `accepted`, so they never exceed it.
        let (completed, failed) = (engine.telemetry.counters.completed(), engine.telemetry.counters.failed());
        let accepted = engine.telemetry.counters.sum(|shard| &shard.accepted);
        let subscriptions = engine.subscriptions.all();
        let mut workers = engine.pool.workers();
        for subscription in engine.subscriptions.dedicated() {
            workers.extend(subscription.pool.workers());
        }
        Stats {
            instance_id: Arc::clone(&engine.instance.id),
            is_running: engine.lifecycle.phase() == Phase::Running,
            accepted,
            rejected: engine.telemetry.counters.sum(|shard| &shard.rejected),
            duplicates: engine.telemetry.counters.sum(|shard| &shard.duplicates),
            completed,
            failed,
            in_flight: accepted.saturating_sub(completed + failed),
            deliveries: engine.telemetry.counters.deliveries(),
            attempts: engine.telemetry.counters.sum(|shard| &shard.attempts),
            retries: engine.telemetry.counters.sum(|shard| &shard.retries),
            dead_letters: engine.dead_letters.count() as u64,
            dead_letters_evicted: engine.dead_letters.evicted(),
            dead_letter_notices_lost: engine.dead_letters.notices_lost(),
            workers: workers.len(),
            workers_busy: workers.iter().filter(|worker| worker.calls() % 2 == 1).count(),
            stuck_handlers: engine.timer.stuck_handlers(),
            stream_gaps: engine.streams.gaps(),
            subscriptions: subscriptions.iter().map(subscription_stats).collect(),
            bridge: engine.bridge.as_ref().map(|bridge| bridge.stats()),
        }
    }
}

fn subscription_stats(subscription: &Arc<Subscription>) -> SubscriptionStats {
    let counters = &subscription.counters;
    SubscriptionStats {
        id: subscription.id,
        name: Arc::clone(&subscription.name),
        pattern: subscription.pattern.as_str().into(),
        concurrency: subscription.concurrency() as usize,
        queued: subscription.inbox.queued(),
        queue_capacity: subscription.inbox.capacity(),
        waiting: subscription.inbox.waiting() as u64,
        running: subscription.running(),
        paused: subscription.is_paused(),
        attempts: counters.started.load(Ordering::SeqCst),
        retries: counters.retries.load(Ordering::SeqCst),
        deliveries: counters.deliveries(),
    }
}
