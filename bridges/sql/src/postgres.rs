//! PostgreSQL 13 or later: instances on many machines share a server.
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
//! They are in the first schema of the role's `search_path`.
//!
//! # Connections
//! A provider has at most [`max_connections`](Postgres::max_connections) connections, 3 by default. One of them receives notifications,
//! from the first subscription on. Questions of operators and streams of all instances' events share one of the others. Opening uses two
//! connections for a moment. Each connection is made and used on its own thread, so a provider works inside an async program too.
//!
//! A statement may take 10 s, and a lock 5 s; a registration and a migration may take a minute. A call to a server that does not answer
//! ends after 15 s. Lost connections are made again after 50 ms to 1 s. A connection that has not been answered for 10 s is replaced if
//! another one is answered and `pg_stat_activity` shows no running statement of the first; for that moment there is one more connection.
//!
//! A publish is committed with `synchronous_commit = on` before it is accepted, or with a stricter setting of the role. Claims and
//! verdicts are not synced: a crash of the server may undo them, and then they happen once more. Leases count by the server's clock.
//! Columns may change their type or number while brokers run, as long as the new types take the same values.
//!
//! # Poolers
//! A pooler that gives each client a session of its own is like none. One that gives a session to another client after each transaction
//! (PgBouncer with `pool_mode = transaction`) needs [`pooler`](Postgres::pooler) `true`, or `auto`, the default, which finds it. Then
//! each statement runs in a transaction with its settings, and nothing is prepared or locked for a session. Notifications do not come
//! through such a pooler: they come at [`listen_url`](Postgres::listen_url), the address of the server itself, or events of other
//! instances are found each [`poll_interval`](Postgres::poll_interval). A pooler that does not allow transactions
//! (`pool_mode = statement`) is refused.
//!
//! # Roles
//! The settings of a role or a database that matter are replaced: limits of time, isolation, time zone, plans. Refused by name are a
//! `search_path` without a schema, `default_transaction_read_only`, and `session_replication_role = replica`, which turns off the trigger
//! that makes deliveries. A row-level security policy that hides rows from the role hides events from the broker.
//!
//! # Failover
//! An address may name several servers: `postgres://broker@a,b:5433/shop?target_session_attrs=read-write`. They are tried in this order,
//! and the first one that answers and can be written to is used. A server that stands still is left after 10 s. When a server has become
//! read-only, every connection leaves it.
//!
//! With a synchronous standby (`synchronous_standby_names`) a failover loses no accepted event. Without one it may lose the last commits.
//! A publisher looks for the event that it published last when it connects again. If the event is absent, the loss is logged and counted
//! as at least one (`entries_lost` of `Broker::back_end_stats`). An event that another program has removed looks the same. Verdicts that
//! were lost are not reported: their deliveries happen once more. Behind a pooler that shares sessions the connections may survive a
//! failover, and then no publisher looks for its last event. Either every server of an address is behind such a pooler, or none.
//!
//! # Rights
//! The role that makes the tables needs `CREATE` on the schema. Tables that are up to date need no such right. A broker's role needs:
//! ```sql
//! GRANT SELECT, INSERT, UPDATE, DELETE ON events, events_subscriptions, events_deliveries, events_instances, events_meta TO broker;
//! GRANT USAGE ON SEQUENCE events_position_seq, events_subscriptions_id_seq, events_dead_letters TO broker;
//! ```
//! It also needs `EXECUTE` on the functions, which everybody has unless default privileges were changed. If it is missing, the error of
//! opening is the `GRANT` statement.
//!
//! A role that only inserts events ([`publish_in`] or plain SQL) needs:
//! ```sql
//! GRANT INSERT ON events, events_deliveries TO publisher;
//! GRANT SELECT ON events, events_subscriptions, events_deliveries TO publisher;
//! GRANT UPDATE (status, completed_at) ON events TO publisher;
//! ```

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

pub use crate::settings::{OpenError, Postgres};
pub use publish::{Outbox, publish_in};
pub use schema::schema;
