//! Settling: acknowledgements, and the records that an acknowledgement does not replace. Lost leases are noticed where partitions change hands,
//! in `partitions/claims.rs`: without partitions JetStream accepts a late acknowledgement from any member.

mod outcome;
mod pending_acks;
mod status_record;

pub(crate) use outcome::{Ended, record};
pub(crate) use pending_acks::PendingAcks;
pub(crate) use status_record::{StatusRecord, change_status};
