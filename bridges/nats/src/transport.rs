//! The connections to the servers, and the only room that names tokio.
//!
//! A provider has three connections: [`PublishConn`], which the mirror thread and every thread that stores an event share under a lock, and the
//! two of a [`Session`] on the bridge thread: the consume connection and the client library's, for everything else.

mod address;
mod client;
mod consume_conn;
mod frame;
mod publish_conn;
mod request_mux;
mod runtime;
mod session;
mod socket;
mod tls;

use std::sync::Arc;

use eventbroker::provider::Backoff;

use crate::settings::{Nats, OpenError};
use address::Address;

pub(crate) use consume_conn::PullInbox;
pub(crate) use frame::{Headers, Incoming};
pub(crate) use publish_conn::PublishConn;
pub(crate) use runtime::Runtime;
pub(crate) use session::Session;

/// Starts the bridge thread, and prepares the publish connection. Both connect when they are used.
pub(crate) fn open(settings: &Nats, boot: &str) -> Result<(Runtime, PublishConn), OpenError> {
    let address = Arc::new(Address::new(settings, format!("eventbroker {boot}"))?);
    let backoff = Arc::new(Backoff::default());
    let conn = PublishConn::new(Arc::clone(&address), Arc::clone(&backoff));
    let runtime = Runtime::start(address, backoff).map_err(|error| OpenError::Server(format!("no thread: {error}")))?;
    Ok((runtime, conn))
}
