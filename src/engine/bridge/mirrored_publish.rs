//! A publish through the back end: places are reserved here, the mirror thread sends the event, and its deliveries are enqueued once the
//! back end holds it.

use std::sync::Arc;

use crate::bridge::{Bridge, Confirmation, Receipt, Unsent};
use crate::engine::Engine;
use crate::engine::admission::{Admission, Publishing, Refusal};
use crate::engine::publish::duplicate;
use crate::event::Event;
use crate::outcome::{Accepted, PublishError};
use crate::subscription::{Reservation, Subscription};

impl Engine {
    /// Publishes by way of the back end: the receipt knows its answer. Waits for room here only if `may_block`.
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

    /// The subscriptions that receive an event from this process, not from a back end.
    pub(in crate::engine) fn local_targets(&self, event: &Event) -> Vec<Arc<Subscription>> {
        let route = self.router.route(event.event_type());
        let local = |it: &&Arc<Subscription>| !self.bridge.as_ref().is_some_and(|bridge| bridge.serves(it.scope));
        route.targets().iter().filter(local).cloned().collect()
    }

    /// Has the back end, if there is one, confirm an event that this thread will dispatch by itself, or gets it a place in the
    /// buffer. True if it was known there.
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

    /// Stores and dispatches an event that the back end holds.
    pub(super) fn accept_confirmed(
        self: &Arc<Self>,
        event: Event,
        reservation: Reservation,
    ) -> Result<Accepted, PublishError> {
        let Reservation { targets, unreserved } = reservation;
        self.store_published(event, &targets, 0, &unreserved, None)
            .map(|stored| self.accept(stored, &targets, &unreserved))
    }
}
