//! settle

pub(crate) mod lease_record;
pub(crate) mod outcome;
pub(crate) mod pending_acks;
pub(crate) mod recent_acks;
