//! The way to the server: its address, connections with a thread each, and notifications.

mod activity;
mod address;
mod bounded;
mod connection;
mod error;
mod link;
mod links;
mod listener;
mod notifier;
mod parameter;
mod pooler;
mod server;
mod session_settings;
mod thread;
#[cfg(feature = "tls")]
mod tls;
mod worker;

pub(crate) use address::Address;
pub(crate) use connection::Session;
pub(crate) use error::backend_error;
pub(crate) use link::CALL_LIMIT;
pub(crate) use links::Links;
pub(crate) use notifier::Notifier;
pub(crate) use parameter::{Parameter, Value, references};
pub(crate) use pooler::shares_sessions;
pub(crate) use session_settings::{SYNCED, UNSYNCED};
