//! Settling: the messages in hand, their acknowledgements, and the records that an acknowledgement does not replace. Lost leases are noticed where
//! partitions change hands, in `partitions/claims.rs`: without partitions JetStream accepts a late acknowledgement from any member.

mod held_messages;
mod lease_record;
mod outcome;
mod pending_acks;
mod recent_acks;
mod status_record;

pub(crate) use held_messages::{HeldMessage, HeldMessages, MessageKey};
pub(crate) use lease_record::{GivenBack, LeaseRecord, RedeliveryInfo, give_back, key as lease_key, redelivery_infos};
pub(crate) use outcome::{Ended, StoredDeadLetter, record};
pub(crate) use pending_acks::PendingAcks;
pub(crate) use recent_acks::Ring;
pub(crate) use status_record::{StatusRecord, change_status};
