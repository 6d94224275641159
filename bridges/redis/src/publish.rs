//! Publishing: the mirror stores batches of events.

pub(crate) mod mirror;
