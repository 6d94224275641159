//! The way to the database.

pub(crate) mod address;
pub(crate) mod connection;
pub(crate) mod error;
pub(crate) mod link;
pub(crate) mod listener;
#[cfg(feature = "tls")]
pub(crate) mod tls;
