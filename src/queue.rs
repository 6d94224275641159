//! Where deliveries wait before an attempt: the inbox of a subscription with its lanes, the delayed retries, and the
//! leases that deliveries of a back end hold. Which worker runs them is decided in `subscription` and `engine`.

mod delayed;
mod delivery;
mod inbox;
mod lane;
mod lane_key;
mod lease;

pub(crate) use delayed::DelayedQueue;
pub(crate) use delivery::{History, Place, QueuedDelivery};
pub(crate) use inbox::Inbox;
pub(crate) use lease::{HeldLease, Leases};
