//! jetstream

pub(crate) mod consumer;
pub(crate) mod entry;
pub(crate) mod kv;
pub(crate) mod leader;
pub(crate) mod message;
pub(crate) mod names;
pub(crate) mod scan;
pub(crate) mod stream;
