//! A publish through the back end: reserve places and hand the event to the mirror thread, which enqueues it once the back
//! end holds it.

use std::sync::Arc;

use crate::bridge::{Bridge, Confirmation, OnConfirmed, Receipt, Unsent};
use crate::engine::Engine;
use crate::engine::admission::{Admission, Publishing, Refusal};
use crate::engine::publish::duplicate;
use crate::event::Event;
use crate::outcome::PublishError;
use crate::subscription::{Reservation, Subscription};

impl Engine {
    /// Publishes an event through the back end, which resolves the receipt. Blocks only for places, if `may_block`.
    pub(crate) fn publish_mirrored(
        self: &Arc<Self>,
        bridge: &Bridge,
        event: Event,
        may_block: bool,
    ) -> Result<Receipt, PublishError> {
        let Some(publishing) = self.enter() else { return self.refuse(event, Refusal::NotRunning) };
        let may_exist = event.may_exist();
        let targets = self.local_targets(&event);
        let unreserved = match self.admit(&publishing, &event, &targets, may_block) {
            Ok(Admission::Reserved(unreserved)) => unreserved,
            Ok(Admission::Known(known)) => return Ok(Receipt::known(duplicate(&known))),
            Err(refusal) => return self.refuse(event, refusal),
        };
        let reservation = Reservation { targets, unreserved };
        if bridge.outbox.buffers {
            return self.publish_buffered(bridge, &publishing, event, may_exist, reservation).map(Receipt::known);
        }
        let (confirmation, copy) = (Arc::new(Confirmation::new(bridge.outbox.gate())), event.clone());
        self.send_out(bridge, &publishing, Unsent { event, may_exist }, Some(reservation), &confirmation)?;
        Ok(Receipt::pending(confirmation, copy))
    }

    /// The matching subscriptions that are not served by the back end.
    pub(in crate::engine) fn local_targets(&self, event: &Event) -> Vec<Arc<Subscription>> {
        let route = self.router.route(event.event_type());
        let local = |it: &&Arc<Subscription>| !self.bridge.as_ref().is_some_and(|bridge| bridge.serves(it.scope));
        route.targets().iter().filter(local).cloned().collect()
    }

    /// Waits until the back end, if any, has confirmed an event that this thread will enqueue itself, at most
    /// `sync_timeout`; buffered, only reserves room in the outbox. True if the back end knew the event.
    pub(in crate::engine) fn confirm_first(
        &self,
        publishing: &Publishing<'_>,
        event: &Event,
    ) -> Result<bool, PublishError> {
        let Some(bridge) = self.mirroring_bridge() else { return Ok(false) };
        if bridge.outbox.buffers {
            let reserved = bridge.outbox.reserve().map(|()| false);
            return reserved.or_else(|limit| self.refuse(event.clone(), Refusal::Full(limit)));
        }
        let confirmation = Arc::new(Confirmation::new(bridge.outbox.gate()));
        self.send_out(bridge, publishing, Unsent { event: event.clone(), may_exist: true }, None, &confirmation)?;
        Receipt::pending(confirmation, event.clone()).wait(self.config.sync_timeout).map(|it| it.duplicate)
    }

    /// Passes an event to the mirror thread, with its reserved places.
    fn send_out(
        &self,
        bridge: &Bridge,
        _publishing: &Publishing<'_>,
        unsent: Unsent,
        reservation: Option<Reservation>,
        confirmation: &Arc<Confirmation>,
    ) -> Result<(), PublishError> {
        if let Err(limit) = bridge.outbox.reserve() {
            if let Some(reservation) = reservation {
                reservation.release();
            }
            return self.refuse(unsent.event, Refusal::Full(limit));
        }
        bridge.outbox.enqueue(unsent, OnConfirmed::Answer { reservation, confirmation: Arc::clone(confirmation) });
        Ok(())
    }
}
