//! Lookups: events, statuses, statistics, streams.

pub(crate) mod operator;
pub(crate) mod store;
pub(crate) mod tail;
