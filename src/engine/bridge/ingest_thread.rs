//! The ingest thread: receives deliveries from the back end, as many as the queues have places for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::pauses::Pauses;
use crate::base::nanos;
use crate::bridge::Bridge;
use crate::engine::{Engine, Phase};
use crate::event::Event;
use crate::outcome::BackendError;
use crate::provider::{Demand, Ingest, Lease};
use crate::queue::{HeldLease, History, Place, QueuedDelivery};
use crate::store::{SharedRecord, StatusSource};
use crate::subscription::{Subscription, become_worker, guarded};

/// The most deliveries per subscription and call of the ingest.
const MAX_RECEIVE: u64 = 1_024;
/// How long a call of the ingest waits for a delivery unless it is woken.
const WAIT: Duration = Duration::from_secs(1);
/// How long a call waits if the ingest has no waker.
pub(super) const POLL_WAIT: Duration = Duration::from_millis(100);

impl Engine {
    pub(super) fn run_ingest(self: &Arc<Self>, mut ingest: Box<dyn Ingest>) {
        become_worker();
        let Some(bridge) = &self.bridge else { return };
        let wait = if ingest.waker().is_some() { WAIT } else { POLL_WAIT };
        let mut pauses = Pauses::new();
        while !bridge.closing.is_set() {
            let step = guarded(|| self.ingest_step(bridge, &mut *ingest, wait));
            match step.unwrap_or_else(|panic| Err(BackendError::Unavailable(panic))) {
                Ok(()) => pauses = Pauses::new(),
                Err(error) => {
                    bridge.record_error(&error);
                    pauses.pause(self, bridge);
                }
            }
        }
        bridge.ingest_ended.set(());
    }

    fn ingest_step(
        self: &Arc<Self>,
        bridge: &Bridge,
        ingest: &mut dyn Ingest,
        wait: Duration,
    ) -> Result<(), BackendError> {
        bridge.inbound.notify.reset();
        // Ingest thread: stores `receiving`, then loads the phase. `stop`: exchanges the phase, then loads `receiving`
        // in `drain`. All four are SeqCst: either the stop waits for the deliveries that come in, or this thread sees
        // the stop and receives none.
        bridge.inbound.receiving.store(true, Ordering::SeqCst);
        let demand = self.demand(bridge);
        // Called without demand, too, so that the back end can do its housekeeping.
        let wait = if demand.is_empty() { Duration::ZERO } else { wait };
        let is_running = self.lifecycle.phase() == Phase::Running;
        let received = if is_running { self.receive(bridge, ingest, &demand, wait) } else { Ok(()) };
        bridge.inbound.receiving.store(false, Ordering::SeqCst);
        for name in ingest.wanted_back() {
            let subscription = self.subscriptions.find_by_name(&name);
            if let Some(subscription) = subscription {
                // Deliveries that wait for a retry stay: they keep their attempts and their due time.
                self.release_leases(&subscription, false);
                bridge.wait_until_settled();
            }
        }
        if demand.is_empty() {
            bridge.inbound.notify.wait(POLL_WAIT);
        }
        received
    }

    fn receive(
        self: &Arc<Self>,
        bridge: &Bridge,
        ingest: &mut dyn Ingest,
        demand: &[Demand],
        wait: Duration,
    ) -> Result<(), BackendError> {
        let lease_time = bridge.inbound.lease_time().map(nanos);
        bridge.inbound.leases.lock().receive_begins();
        let received = ingest.receive(demand, wait)?;
        // One time for all leases, because the process may be suspended while they are enqueued.
        let (now, instant) = (self.clock.now(), Instant::now());
        let hold = |lease: &Lease| {
            let age = nanos(instant.saturating_duration_since(lease.asked));
            Arc::new(HeldLease::new(lease, now, age, lease_time))
        };
        let leases: Vec<Arc<HeldLease>> = received.iter().map(hold).collect();
        bridge.inbound.ingested.fetch_add(leases.len() as u64, Ordering::SeqCst);
        // Together: if one lease is lost, those behind it of the same key are lost with it.
        let overtaking = bridge.inbound.leases.lock().take_in(&leases);
        for (delivery, lease) in received.into_iter().zip(&leases) {
            if overtaking.contains(&lease.token) {
                bridge.release(lease);
            } else if !self.enqueue_leased(delivery, lease) {
                bridge.inbound.leases.lock().lose_behind(lease);
                bridge.release(lease);
            }
        }
        if !overtaking.is_empty() {
            // The next receive begins when the back end can deliver them in order.
            bridge.wait_until_settled();
        }
        Ok(())
    }

    /// The credit of each served subscription, that is, the free places of its queue; without those that have none.
    fn demand(&self, bridge: &Bridge) -> Vec<Demand> {
        if self.lifecycle.phase() != Phase::Running {
            return Vec::new();
        }
        bridge.inbound.without_credit.store(false, Ordering::SeqCst);
        let credit = |it: &Arc<Subscription>| {
            let free = if it.inbox.is_full() || it.is_paused() {
                0
            } else {
                it.inbox.capacity().saturating_sub(it.inbox.queued())
            };
            if !it.inbox.is_half_empty() {
                bridge.inbound.without_credit.store(true, Ordering::SeqCst);
            }
            Demand::new(Arc::clone(&it.name), free.min(MAX_RECEIVE) as usize)
        };
        let subscriptions = self.subscriptions.all();
        let served = subscriptions.iter().filter(|it| bridge.serves(it.scope));
        served.map(credit).filter(|demand| demand.deliveries > 0).collect()
    }

    /// Enqueues a leased delivery. False if its subscription is unknown or has no place.
    fn enqueue_leased(self: &Arc<Self>, received: Lease, lease: &Arc<HeldLease>) -> bool {
        let Some(subscription) = self.subscriptions.find_by_name(&received.subscription) else { return false };
        if !subscription.inbox.reserve() {
            return false;
        }
        let record = self.find_or_store(received.event);
        let mut delivery = QueuedDelivery::new(record, Place::Queue);
        delivery.history = Some(Box::new(History { lease: Some(Arc::clone(lease)), ..History::default() }));
        delivery.attempts = received.attempts;
        received.errors.into_iter().for_each(|error| delivery.remember(error));
        subscription.inbox.enter(delivery);
        self.after_enqueue(&subscription);
        true
    }

    /// The record of an event from the back end, stored if it is new, with one more open delivery.
    fn find_or_store(&self, event: Event) -> SharedRecord {
        let stored = match self.store.find(event.id()) {
            Some(known) => Err(known),
            None => self.store_new(event, 1, StatusSource::Ingest).map_err(|(_, known)| known),
        };
        stored.unwrap_or_else(|known| {
            self.reopen(&known, |record| record.add(1));
            known
        })
    }
}
