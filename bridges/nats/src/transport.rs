//! transport

pub(crate) mod client;
pub(crate) mod consume_conn;
pub(crate) mod frame;
pub(crate) mod publish_conn;
pub(crate) mod request_mux;
pub(crate) mod runtime;
pub(crate) mod socket;
pub(crate) mod tls;
