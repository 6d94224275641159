//! Durable events for [`eventbroker`] in an SQL database.
//!
//! With [SQLite](Sqlite) nothing has to be installed or started: events live in a file and survive the process, and several processes
//! of one machine may share the file. With PostgreSQL (`Postgres`, by the feature `postgres`) instances on many machines share a server.
//! A publish is accepted when its event is committed and synced to the disk. Each event is handed to one member of every group that has
//! a subscription for it, under a lease, until its handler has settled.
//!
//! ```no_run
//! use eventbroker::{Broker, Event, Source, SubscribeOptions};
//! use eventbroker_sql::Sqlite;
//!
//! let broker = Broker::builder().provider(Sqlite::new("events.db").open()?).start()?;
//! broker.subscribe_with(SubscribeOptions::new("shop.orders.*").name("mailer"), |delivery| {
//!     println!("{}", delivery.event().id());
//! })?;
//! broker.publish(Event::builder(Source::System, "shop.orders.create").build()?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The tables are described in [`sqlite`], and for PostgreSQL in `postgres`. To publish in your own transaction, see
//! [`sqlite::publish_in`] and `postgres::publish_in`.
#![cfg_attr(not(any(feature = "sqlite", feature = "postgres")), allow(unused))]

mod backlog;
mod columns;
mod housekeeping;
mod leases;
mod member;
mod names;
mod notify;
mod pattern;
#[cfg(feature = "postgres")]
pub mod postgres;
mod provider;
mod record;
mod schema;
mod select;
mod settings;
#[cfg(feature = "sqlite")]
pub mod sqlite;
mod statements;
mod subscriptions;
mod value;

#[cfg(feature = "postgres")]
pub use crate::postgres::Postgres;
pub use names::{InvalidName, TableName};
pub use settings::{Connections, Notifications, OpenError, Pooler, Settings};
#[cfg(feature = "sqlite")]
pub use sqlite::Sqlite;
pub use value::SqlValue;
