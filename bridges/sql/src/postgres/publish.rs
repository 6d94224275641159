//! Events out.

pub(crate) mod mirror;
pub(crate) mod transaction;
