//! query

pub(crate) mod operator;
pub(crate) mod status;
pub(crate) mod store;
pub(crate) mod tail;
