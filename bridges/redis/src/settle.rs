//! Settling: registrations, verdicts and extensions reach the server.

mod outcome;
mod settler;

pub(crate) use settler::RedisSettler;
