//! SQLite in files, PostgreSQL on one server that the tests share.

#[cfg(feature = "postgres")]
mod postgres;
mod rooms;
mod sqlite;
mod support;
