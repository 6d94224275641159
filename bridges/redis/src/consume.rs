//! Consuming: deliveries are claimed and read.

pub(crate) mod batch_reply;
pub(crate) mod claimer;
pub(crate) mod ingest;
pub(crate) mod reader;
