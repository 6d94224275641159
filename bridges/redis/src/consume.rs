//! Consuming: the ingest claims deliveries for each subscription, and waits for more.

mod batch_reply;
mod claim_batch;
mod claimer;
mod ingest;
mod reader;

pub(crate) use ingest::RedisIngest;
