//! The connection to the server: sockets, TLS, commands as bytes, replies as they are read.

pub(crate) mod command;
pub(crate) mod link;
pub(crate) mod reply;
pub(crate) mod socket;
#[cfg(feature = "tls")]
pub(crate) mod tls;
