//! Queries: events and their statuses, dead letters, lag, and the stream of new events.

mod locate;
mod operator;
mod status;
mod store;
mod tail;

pub(crate) use locate::{Locator, first_since};
pub(crate) use operator::NatsOperator;
pub(crate) use store::NatsStore;
