//! publish

pub(crate) mod mirror;
