//! The connection to the server: sockets, TLS, commands as bytes, replies as they are read, and a link that reconnects.

mod command;
mod link;
mod reply;
mod socket;
#[cfg(feature = "tls")]
mod tls;

pub(crate) use command::{Request, exchange};
pub(crate) use link::{Link, Server};
pub(crate) use reply::{Piece, damaged, refusal};
pub(crate) use socket::Connection;
