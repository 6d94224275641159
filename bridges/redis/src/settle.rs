//! Settling: the outcome of each delivery reaches the server.

pub(crate) mod outcome;
pub(crate) mod settler;
