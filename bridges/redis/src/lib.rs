//! Durable events for [`eventbroker`] across instances, on Redis Streams.
//!
//! Every instance appends its events to one stream, and reads them through a consumer group for each of its subscriptions. An accepted
//! event is an entry of the stream. The entry is acknowledged when its handler has settled. The stream and the fields of its entries are
//! those of ResolveSpec's event broker, so both can share a stream.
//!
//! ```no_run
//! use eventbroker::{Broker, Event, Source, SubscribeOptions};
//! use eventbroker_redis::Redis;
//!
//! let broker = Broker::builder().provider(Redis::new("redis://localhost").open()?).start()?;
//! broker.subscribe_with(SubscribeOptions::new("shop.orders.*").name("mailer"), |delivery| {
//!     println!("{}", delivery.event().id());
//! })?;
//! broker.publish(Event::builder(Source::System, "shop.orders.create").build()?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The floor is Redis 7.0. `docs/redis.md` lists the keys and the rights that a user needs, and tells which events survive which fault.
//!
//! Members of a group compete for the stream: the events of a key are in order within an instance, and across instances only with
//! [`partitions`](Redis::partitions).
#![cfg_attr(not(feature = "client"), allow(dead_code))]

#[cfg(feature = "client")]
mod consume;
#[cfg(feature = "client")]
mod housekeeping;
#[cfg(feature = "client")]
mod membership;
#[cfg(feature = "client")]
mod partitions;
#[cfg(feature = "client")]
mod provider;
#[cfg(feature = "client")]
mod publish;
#[cfg(feature = "client")]
mod query;
#[cfg(feature = "client")]
mod scripts;
mod settings;
#[cfg(feature = "client")]
mod settle;
#[cfg(feature = "client")]
mod subscriptions;
#[cfg(feature = "client")]
mod transport;

pub use settings::{OpenError, Redis, Status};
