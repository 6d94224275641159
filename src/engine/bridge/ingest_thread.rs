//! The ingest thread: brings deliveries in from the back end, as many as there is room for.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Bridge;
use super::held::Held;
use super::wait::Pauses;
use crate::clock::nanos;
use crate::engine::Engine;
use crate::event::Event;
use crate::handler::guarded;
use crate::inbox::{History, Place, Queued};
use crate::lifecycle::Phase;
use crate::provider::{BackendError, Ingest, Lease, Room};
use crate::store::{By, SharedRecord};
use crate::subscription::Subscription;

/// Deliveries per subscription and call of the ingest.
const MAX_RECEIVE: u64 = 1_024;
/// How long a call of the ingest waits for a delivery, if nothing wakes it.
const WAIT: Duration = Duration::from_secs(1);
/// The same for an ingest that can't be woken.
pub(super) const DEAF_WAIT: Duration = Duration::from_millis(100);

impl Engine {
    pub(super) fn run_ingest(self: &Arc<Self>, mut ingest: Box<dyn Ingest>) {
        crate::delivery::become_worker();
        let Some(bridge) = &self.bridge else { return };
        let wait = if ingest.waker().is_some() { WAIT } else { DEAF_WAIT };
        let mut pauses = Pauses::new();
        while !bridge.closing.is_set() {
            let step = guarded(|| self.ingest_step(bridge, &mut *ingest, wait));
            match step.unwrap_or_else(|panic| Err(BackendError::Unavailable(panic))) {
                Ok(()) => pauses = Pauses::new(),
                Err(error) => {
                    bridge.note_error(&error);
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
        bridge.bell.quiet();
        // Before the look at the phase, so that a stop either waits for what comes in, or nothing does.
        bridge.receiving.store(true, Ordering::SeqCst);
        let room = self.room(bridge);
        // Without room too, for what the back end has to see to.
        let wait = if room.is_empty() { Duration::ZERO } else { wait };
        let is_running = self.lifecycle.phase() == Phase::Running;
        let received = if is_running { self.receive(bridge, ingest, &room, wait) } else { Ok(()) };
        bridge.receiving.store(false, Ordering::SeqCst);
        for name in ingest.wanted_back() {
            let subscription = self.subscriptions.lock().find_by_name(&name);
            if let Some(subscription) = subscription {
                // What waits for its retry keeps its attempts and its time.
                self.give_back(&subscription, false);
                bridge.wait_until_settled();
            }
        }
        if room.is_empty() {
            bridge.bell.wait(DEAF_WAIT);
        }
        received
    }

    fn receive(
        self: &Arc<Self>,
        bridge: &Bridge,
        ingest: &mut dyn Ingest,
        room: &[Room],
        wait: Duration,
    ) -> Result<(), BackendError> {
        let lease_time = bridge.lease_time.get().copied().flatten().map(nanos);
        let leases = ingest.receive(room, wait)?;
        // Once for all of them, because the process may sleep while they are taken in.
        let (now, here) = (self.clock.now(), Instant::now());
        let hold = |lease: &Lease| {
            let age = nanos(here.saturating_duration_since(lease.asked));
            Arc::new(Held::new(lease, now, age, lease_time))
        };
        let held: Vec<Arc<Held>> = leases.iter().map(hold).collect();
        bridge.ingested.fetch_add(held.len() as u64, Ordering::SeqCst);
        // All at once: if one is lost, what came behind it is.
        bridge.held.lock().take_in(&held);
        for (lease, held) in leases.into_iter().zip(&held) {
            if !self.take_in(lease, held) {
                bridge.lose_behind(held);
                bridge.release(held);
            }
        }
        Ok(())
    }

    /// How many deliveries each served subscription has room for; those without room are not listed.
    fn room(&self, bridge: &Bridge) -> Vec<Room> {
        if self.lifecycle.phase() != Phase::Running {
            return Vec::new();
        }
        bridge.starved.store(false, Ordering::SeqCst);
        let free = |it: &Arc<Subscription>| {
            let all = if it.inbox.is_full() || it.is_paused() {
                0
            } else {
                it.inbox.capacity().saturating_sub(it.inbox.queued())
            };
            if !it.inbox.is_half_empty() {
                bridge.starved.store(true, Ordering::SeqCst);
            }
            Room::new(Arc::clone(&it.name), all.min(MAX_RECEIVE) as usize)
        };
        let subscriptions = self.subscriptions.lock().all();
        let served = subscriptions.iter().filter(|it| bridge.serves(it.scope));
        served.map(free).filter(|room| room.deliveries > 0).collect()
    }

    /// Takes a leased delivery in. False if there is no place for it.
    fn take_in(self: &Arc<Self>, lease: Lease, held: &Arc<Held>) -> bool {
        let Some(subscription) = self.subscriptions.lock().find_by_name(&lease.subscription) else { return false };
        if !subscription.inbox.reserve() {
            return false;
        }
        let record = self.record_of(lease.event);
        let mut delivery = Queued::new(record, Place::Queue);
        delivery.history = Some(Box::new(History { lease: Some(Arc::clone(held)), ..History::default() }));
        delivery.attempts = lease.attempts;
        lease.errors.into_iter().for_each(|error| delivery.remember(error));
        subscription.inbox.enter(delivery);
        self.after_push(&subscription);
        true
    }

    /// The record of an event that the back end knows, with one more delivery that is open.
    pub(super) fn record_of(&self, event: Event) -> SharedRecord {
        let stored = match self.store.find(event.id()) {
            Some(known) => Err(known),
            None => self.store_new(event, 1, By::Ingest).map_err(|(_, known)| known),
        };
        stored.unwrap_or_else(|known| {
            self.reopen(&known, |record| record.add(1));
            known
        })
    }
}
