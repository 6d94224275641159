//! Settling: registrations, verdicts and extensions reach the server.

mod outcome;
mod settler;
mod stored;

pub(crate) use settler::RedisSettler;
pub(crate) use stored::{StoredLetter, from_stored};
