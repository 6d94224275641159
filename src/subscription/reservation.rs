//! The places that one event takes in the queues of its subscriptions: all or none. Which subscriptions are waited for is decided in
//! `engine/admission.rs`.

use std::sync::Arc;

use super::Subscription;
use crate::config::Overflow;

/// Subscriptions, by index, in which no place is reserved: those without room whose overflow policy drops, and those that were removed
/// meanwhile.
pub(crate) type Unreserved = Vec<usize>;

/// The places of an event that the back end has to confirm first.
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
/// The first full subscription whose policy drops nothing; the places taken before it are the caller's to release.
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
