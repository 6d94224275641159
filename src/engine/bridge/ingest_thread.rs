//! The ingest thread: brings deliveries in from the back end, as many as there is room for.

use std::sync::Arc;
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

/// Deliveries per subscription and call of the ingest.
const MAX_RECEIVE: u64 = 1_024;
/// How long a call of the ingest waits for a delivery, if nothing wakes it.
const WAIT: Duration = Duration::from_secs(1);
/// The same for an ingest that can't be woken.
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
        // Before the look at the phase, so that a stop either waits for what comes in, or nothing does.
        bridge.inbound.set_receiving(true);
        let demand = self.demand(bridge);
        // Without room too, for what the back end has to see to.
        let wait = if demand.is_empty() { Duration::ZERO } else { wait };
        let is_running = self.lifecycle.phase() == Phase::Running;
        let received = if is_running { self.receive(bridge, ingest, &demand, wait) } else { Ok(()) };
        bridge.inbound.set_receiving(false);
        for name in ingest.wanted_back() {
            let subscription = self.subscriptions.lock().find_by_name(&name);
            if let Some(subscription) = subscription {
                // What waits for its retry keeps its attempts and its time.
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
        let leases = ingest.receive(demand, wait)?;
        // Once for all of them, because the process may sleep while they are taken in.
        let (now, here) = (self.clock.now(), Instant::now());
        let hold = |lease: &Lease| {
            let age = nanos(here.saturating_duration_since(lease.asked));
            Arc::new(HeldLease::new(lease, now, age, lease_time))
        };
        let held: Vec<Arc<HeldLease>> = leases.iter().map(hold).collect();
        bridge.inbound.count_ingested(held.len());
        // All at once: if one is lost, what came behind it is.
        bridge.inbound.leases().take_in(&held);
        for (lease, held) in leases.into_iter().zip(&held) {
            if !self.take_in(lease, held) {
                bridge.inbound.lose_behind(held);
                bridge.release(held);
            }
        }
        Ok(())
    }

    /// How many deliveries each served subscription has room for; those without room are not listed.
    fn demand(&self, bridge: &Bridge) -> Vec<Demand> {
        if self.lifecycle.phase() != Phase::Running {
            return Vec::new();
        }
        bridge.inbound.set_without_credit(false);
        let free = |it: &Arc<Subscription>| {
            let all = if it.inbox.is_full() || it.is_paused() {
                0
            } else {
                it.inbox.capacity().saturating_sub(it.inbox.queued())
            };
            if !it.inbox.is_half_empty() {
                bridge.inbound.set_without_credit(true);
            }
            Demand::new(Arc::clone(&it.name), all.min(MAX_RECEIVE) as usize)
        };
        let subscriptions = self.subscriptions.lock().all();
        let served = subscriptions.iter().filter(|it| bridge.serves(it.scope));
        served.map(free).filter(|demand| demand.deliveries > 0).collect()
    }

    /// Takes a leased delivery in. False if there is no place for it.
    fn take_in(self: &Arc<Self>, lease: Lease, held: &Arc<HeldLease>) -> bool {
        let Some(subscription) = self.subscriptions.lock().find_by_name(&lease.subscription) else { return false };
        if !subscription.inbox.reserve() {
            return false;
        }
        let record = self.record_of(lease.event);
        let mut delivery = QueuedDelivery::new(record, Place::Queue);
        delivery.history = Some(Box::new(History { lease: Some(Arc::clone(held)), ..History::default() }));
        delivery.attempts = lease.attempts;
        lease.errors.into_iter().for_each(|error| delivery.remember(error));
        subscription.inbox.enter(delivery);
        self.after_enqueue(&subscription);
        true
    }

    /// The record of an event that the back end knows, with one more delivery that is open.
    pub(super) fn record_of(&self, event: Event) -> SharedRecord {
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
