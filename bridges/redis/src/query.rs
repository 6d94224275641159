//! Queries: events with their statuses, dead letters, statistics, and streams of events.

mod lag;
mod operator;
mod status;
mod store;
mod tail;

pub(crate) use operator::RedisOperator;
pub(crate) use store::RedisStore;
