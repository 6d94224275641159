//! The way to the server: its address, connections with a thread each, and notifications.

mod activity;
mod address;
mod bounded;
mod connection;
mod error;
mod link;
mod listener;
mod notifier;
mod server;
mod thread;
#[cfg(feature = "tls")]
mod tls;
mod worker;

pub(crate) use address::Address;
pub(crate) use connection::{Session, Sync, Value, references};
pub(crate) use error::backend_error;
pub(crate) use link::{CALL_LIMIT, Link};
pub(crate) use notifier::Notifier;
