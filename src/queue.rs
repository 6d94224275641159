//! What waits for one subscription: its inbox, the lanes behind it, the leases that deliveries hold, the retries that are delayed.

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
