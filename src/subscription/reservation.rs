//! Reserving a place for one event in the queue of each of its subscriptions. Waiting for a full one is in
//! `engine/admission.rs`.

use std::sync::Arc;

use super::Subscription;
use crate::config::Overflow;

/// Subscriptions, by index, in which no place is reserved: full ones whose overflow policy drops, and removed ones.
pub(crate) type Unreserved = Vec<usize>;

/// The places of an event that waits for the confirmation of the back end.
pub(crate) struct Reservation {
    pub(crate) targets: Vec<Arc<Subscription>>,
    pub(crate) unreserved: Unreserved,
}

impl Reservation {
    /// Releases the places.
    pub(crate) fn release(&self) {
        release(&self.targets, &self.unreserved);
    }
}

/// Reserves a place in every subscription that has room.
///
/// # Errors
/// The index of the first full subscription whose policy drops nothing. The caller releases the places before it.
pub(crate) fn reserve(targets: &[Arc<Subscription>]) -> Result<Unreserved, (usize, Unreserved)> {
    let mut unreserved = Unreserved::new();
    for (index, target) in targets.iter().enumerate() {
        if target.inbox.reserve() {
            continue;
        }
        if target.is_closed() || matches!(target.overflow, Overflow::DropOldest | Overflow::DropNewest) {
            unreserved.push(index);
        } else {
            return Err((index, unreserved));
        }
    }
    Ok(unreserved)
}

/// Releases the places that [`reserve`] has taken.
pub(crate) fn release(targets: &[Arc<Subscription>], unreserved: &Unreserved) {
    for (index, target) in targets.iter().enumerate() {
        if !unreserved.contains(&index) {
            target.inbox.release(1);
        }
    }
}
