//! Looking up and operating.

pub(crate) mod operator;
pub(crate) mod store;
pub(crate) mod tail;
