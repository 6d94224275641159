//! A publish in this process: route, admit, store, enqueue. The verbs' promises are in `broker`; what runs afterwards is in `worker`.

use std::sync::Arc;

use super::Engine;
use super::admission::{Admission, Publishing, Refusal};
use crate::event::Event;
use crate::outcome::{Accepted, PublishError, Verdict};
use crate::queue::{Place, QueuedDelivery};
use crate::router::CachedRoute;
use crate::store::{Record, SharedRecord, StatusSource, SyncWait};
use crate::subscription::{State, Subscription, Unreserved, release};

/// A route that a publisher keeps.
pub(crate) type SubscriptionRoute = CachedRoute<Arc<Subscription>>;

/// The store's answer to an event.
pub(super) enum Stored {
    /// The event is new, and its places are reserved.
    New(SharedRecord),
    /// The event was published before; its places are released.
    Known(SharedRecord),
}

impl Stored {
    pub(super) fn new_record(&self) -> Option<&SharedRecord> {
        match self {
            Self::New(record) => Some(record),
            Self::Known(_) => None,
        }
    }
}

impl Engine {
    /// Publishes to the subscriptions of this process. Waits for places only if `may_block`.
    pub(crate) fn publish_local(self: &Arc<Self>, event: Event, may_block: bool) -> Result<Accepted, PublishError> {
        let Some(publishing) = self.enter() else { return self.refuse(event, Refusal::NotRunning) };
        let route = self.router.lookup(event.event_type());
        self.publish_to(&publishing, event, route.targets(), may_block)
    }

    /// Like [`publish_local`](Self::publish_local), for a publisher that keeps the route of its previous event.
    pub(crate) fn publish_cached(
        self: &Arc<Self>,
        event: Event,
        cached: &mut Option<SubscriptionRoute>,
    ) -> Result<Accepted, PublishError> {
        let Some(publishing) = self.enter() else { return self.refuse(event, Refusal::NotRunning) };
        let route = self.router.renew(cached, event.event_type());
        self.publish_to(&publishing, event, route.targets(), true)
    }

    /// Publishes an event of the broker's own, also while it drains. Never waits. The event that caused it is still open, so `stop`
    /// does not miss it.
    pub(super) fn publish_internal(self: &Arc<Self>, event: Event) -> Result<Accepted, PublishError> {
        let Some(publishing) = self.enter_internal() else { return self.refuse(event, Refusal::NotRunning) };
        let route = self.router.lookup(event.event_type());
        self.publish_to(&publishing, event, route.targets(), false)
    }

    /// Admits, stores and enqueues an event for its targets.
    fn publish_to(
        self: &Arc<Self>,
        publishing: &Publishing<'_>,
        event: Event,
        targets: &[Arc<Subscription>],
        may_block: bool,
    ) -> Result<Accepted, PublishError> {
        let unreserved = match self.admit(publishing, &event, targets, may_block) {
            Ok(Admission::Reserved(unreserved)) => unreserved,
            Ok(Admission::Known(known)) => return Ok(duplicate(&known)),
            Err(refusal) => return self.refuse(event, refusal),
        };
        let stored = self.store_published(event, targets, 0, &unreserved, None)?;
        Ok(self.accept(stored, targets, &unreserved))
    }

    /// Stores an event for which room is reserved, and that `others` will settle besides its deliveries; if it is known, the room
    /// is given back.
    pub(super) fn store_published(
        &self,
        event: Event,
        targets: &[Arc<Subscription>],
        others: u32,
        unreserved: &Unreserved,
        sync_wait: Option<Arc<SyncWait>>,
    ) -> Result<Stored, PublishError> {
        let source = StatusSource::Publish { instance_id: &self.instance.id, wait: sync_wait.as_ref() };
        let open = targets.len() as u32 + others;
        match self.store_new(event, open, source) {
            Ok(record) => {
                if open == 0 {
                    self.telemetry.counters.here().completed.add_one();
                }
                self.streams.push(&record.event);
                Ok(Stored::New(record))
            }
            // It came back from the back end before this publish was done with it.
            Err((event, known)) if known.event.same_content(&event) && known.dispatch_once() => {
                if let Some(sync_wait) = sync_wait {
                    known.set_sync_wait(sync_wait);
                }
                if open > 0 {
                    self.reopen(&known, |record| record.add(open));
                }
                self.streams.push(&known.event);
                Ok(Stored::New(known))
            }
            Err((event, known)) => {
                release(targets, unreserved);
                match self.known(&event, &known) {
                    Ok(()) => Ok(Stored::Known(known)),
                    Err(refusal) => self.refuse(event, refusal),
                }
            }
        }
    }

    /// Enqueues the deliveries of a new event, and answers its publisher.
    pub(super) fn accept(
        self: &Arc<Self>,
        stored: Stored,
        targets: &[Arc<Subscription>],
        unreserved: &Unreserved,
    ) -> Accepted {
        let record = match stored {
            Stored::New(record) => record,
            Stored::Known(record) => return duplicate(&record),
        };
        let id = record.event.id().clone();
        self.enqueue_all(record, targets, unreserved, None);
        Accepted { id, duplicate: false, deliveries: targets.len() }
    }

    /// Puts a delivery into each subscription, but for the one at the index `except`.
    pub(super) fn enqueue_all(
        self: &Arc<Self>,
        record: SharedRecord,
        targets: &[Arc<Subscription>],
        unreserved: &Unreserved,
        except: Option<usize>,
    ) {
        // The last one takes the record along, so that an event for one subscription changes no reference count.
        let mut record = Some(record);
        for (index, target) in targets.iter().enumerate() {
            let last = index + 1 == targets.len();
            let shared = if last { record.take() } else { record.clone() };
            let Some(shared) = shared.filter(|_| Some(index) != except) else { continue };
            if !unreserved.contains(&index) || self.make_room(target) {
                target.inbox.push(shared);
                self.after_enqueue(target);
            } else {
                let verdict = if target.is_closed() { Verdict::Cancelled } else { Verdict::Dropped };
                let delivery = QueuedDelivery::new(shared, Place::None);
                self.record_verdict(target, delivery, verdict, None, self.clock.now());
            }
        }
    }

    /// Gives a permit back that no worker holds.
    pub(super) fn release_permit(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        if subscription.release_permit() {
            // The permit was taken again for what has arrived meanwhile: a worker gets it.
            subscription.pool.submit(Arc::clone(subscription));
        }
    }

    /// Sees to it that a delivery that was just put into an inbox is run; or cancelled if its subscription has gone, or given back
    /// if that is paused.
    pub(super) fn after_enqueue(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        match subscription.state() {
            State::Open => self.wake_worker(subscription),
            State::Paused => self.release_leases(subscription, true),
            State::Closed => self.cancel_all(subscription),
        }
    }

    pub(super) fn wake_worker(&self, subscription: &Arc<Subscription>) {
        if subscription.wake_worker() {
            self.timer.watch(subscription);
        }
    }
}

/// The answer to an event that was published before.
pub(super) fn duplicate(known: &Record) -> Accepted {
    Accepted { id: known.event.id().clone(), duplicate: true, deliveries: 0 }
}
