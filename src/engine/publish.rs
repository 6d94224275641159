//! A publish in this process: route, admit, store, enqueue. Its contract is in `broker`. `worker` takes the
//! deliveries, and `attempt` calls the handlers.

use std::sync::Arc;

use super::Engine;
use super::admission::{Admission, Publishing, Refusal};
use crate::event::Event;
use crate::outcome::{Accepted, PublishError, Verdict};
use crate::queue::{Place, QueuedDelivery};
use crate::router::CachedRoute;
use crate::store::{Record, SharedRecord, StatusSource, SyncWait};
use crate::subscription::{State, Subscription, Unreserved, release};

/// A route that a publisher caches between events.
pub(crate) type SubscriptionRoute = CachedRoute<Arc<Subscription>>;

/// The result of storing an event.
pub(super) enum Stored {
    /// The event is new and holds its places.
    New(SharedRecord),
    /// The event was published before; its places are released again.
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
    /// Publishes to the subscriptions of this process. Blocks for places only if `may_block`.
    pub(crate) fn publish_local(self: &Arc<Self>, event: Event, may_block: bool) -> Result<Accepted, PublishError> {
        let Some(publishing) = self.enter() else { return self.refuse(event, Refusal::NotRunning) };
        let route = self.router.lookup(event.event_type());
        self.publish_to(&publishing, event, route.targets(), may_block)
    }

    /// Like [`publish_local`](Self::publish_local), with the route of the previous event if still valid. May block.
    pub(crate) fn publish_cached(
        self: &Arc<Self>,
        event: Event,
        cached: &mut Option<SubscriptionRoute>,
    ) -> Result<Accepted, PublishError> {
        let Some(publishing) = self.enter() else { return self.refuse(event, Refusal::NotRunning) };
        let route = self.router.renew(cached, event.event_type());
        self.publish_to(&publishing, event, route.targets(), true)
    }

    /// Publishes an event of the broker itself, also while draining: the event that caused it is open. Never blocks.
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

    /// Stores an event whose places are reserved; a known one releases them. `others` more settlements are open.
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
            // The ingest received the event before this publish stored it.
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
                match self.check_duplicate(&event, &known) {
                    Ok(()) => Ok(Stored::Known(known)),
                    Err(refusal) => self.refuse(event, refusal),
                }
            }
        }
    }

    /// Stores an event, which is accepted from here on.
    ///
    /// # Errors
    /// The event, and the record that has the same id.
    pub(super) fn store_new(
        &self,
        event: Event,
        deliveries: u32,
        source: StatusSource<'_>,
    ) -> Result<SharedRecord, (Event, SharedRecord)> {
        let counters = &self.telemetry.counters;
        let record = self.store.put(event, deliveries, source, || self.in_flight(counters.settled()))?;
        let here = counters.here();
        here.accepted.add_one();
        if self.config.metrics {
            let series = &self.telemetry.series;
            series.published(here.series(), &record.event);
            // With a back end, deliveries may follow later, on this or another instance.
            if deliveries == 0 && self.bridge.is_none() {
                series.settled(here.series(), &record.event, false, None, 0);
            }
        }
        Ok(record)
    }

    /// Enqueues the deliveries of a new event. Returns the publisher's answer.
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

    /// Enqueues a delivery for each target but the one at `except`. Without a place, the oldest or new one is dropped.
    pub(super) fn enqueue_all(
        self: &Arc<Self>,
        record: SharedRecord,
        targets: &[Arc<Subscription>],
        unreserved: &Unreserved,
        except: Option<usize>,
    ) {
        // The last delivery takes this reference, so that an event for one subscription changes no reference count.
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

    /// Releases a permit that this thread did not get from the pool.
    pub(super) fn release_permit(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        if subscription.release_permit() {
            // Deliveries have arrived meanwhile, so the permit was taken again: it goes to a worker.
            subscription.pool.submit(Arc::clone(subscription));
        }
    }

    /// Follows each enqueue: wakes a worker, releases leases if the subscription is paused, cancels if it is closed.
    pub(super) fn after_enqueue(self: &Arc<Self>, subscription: &Arc<Subscription>) {
        match subscription.state() {
            State::Open => self.wake_worker(subscription),
            State::Paused => self.release_leases(subscription, true),
            State::Closed => self.cancel_all(subscription),
        }
    }

    /// Wakes a worker for a subscription. If none is free, the timer watches the subscription.
    pub(super) fn wake_worker(&self, subscription: &Arc<Subscription>) {
        if subscription.wake_worker() {
            self.timer.watch(subscription);
        }
    }
}

/// The answer for an event that was published before.
pub(super) fn duplicate(known: &Record) -> Accepted {
    Accepted { id: known.event.id().clone(), duplicate: true, deliveries: 0 }
}
