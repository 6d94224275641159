//! SQLite: several processes of one machine share a file.
//!
//! If the events' table is called `events`, the tables are:
//!
//! | table | has a row for |
//! |---|---|
//! | `events` | each event; `position` is the order in which events were stored |
//! | `events_subscriptions` | each group and subscription name, and for broadcasts each instance |
//! | `events_deliveries` | each event and subscription; a trigger inserts it in the transaction that inserts the event |
//! | `events_instances` | each name of an instance that is taken |
//! | `events_meta` | the version of the schema, and each counter |
//!
//! Times are RFC 3339 in UTC, to the nanosecond.
//!
//! A provider writes through one connection, one transaction at a time, because SQLite has one writer. Threads of one process wait
//! for their turn on a lock, not in SQLite's busy loop. A publish is synced to the disk before it is accepted. Claims and verdicts are
//! not synced: a power loss may undo them, and then they happen once more.

mod consume;
mod housekeeping;
mod membership;
mod provider;
mod publish;
mod query;
mod schema;
mod settle;
mod statements;
mod subscriptions;
mod transport;

pub use crate::settings::{OpenError, Sqlite};
pub use publish::{Outbox, publish_in};
pub use schema::schema;
