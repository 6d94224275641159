//! The way to the database.

pub(crate) mod clock;
pub(crate) mod connection;
pub(crate) mod watcher;
