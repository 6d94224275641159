//! JetStream as this bridge uses it: its API, messages and acknowledgements, the two streams, durable consumers, and the names and formats of all
//! that is stored.

pub(crate) mod ack;
pub(crate) mod api;
pub(crate) mod clock;
pub(crate) mod consumer;
pub(crate) mod entry;
pub(crate) mod kv;
pub(crate) mod layout;
mod leader;
pub(crate) mod message;
pub(crate) mod names;
pub(crate) mod scan;
pub(crate) mod stream;

pub(crate) use ack::Ack;
pub(crate) use api::Result;
pub(crate) use clock::ServerClock;
pub(crate) use consumer::{Consumer, ConsumerInfo};
pub(crate) use kv::KeyValue;
pub(crate) use layout::Layout;
pub(crate) use message::{DeliveryInfo, Get, NewMessage, StoredMessage};
pub(crate) use scan::{Scan, ScanRequest, Start};
