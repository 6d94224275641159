//! Publishing: batches of events are stored, and the outcome of each is returned.

mod backlog;
mod mirror;
mod store;

pub(crate) use backlog::BacklogLimit;
pub(crate) use mirror::RedisMirror;
pub(crate) use store::{Publishing, store};
