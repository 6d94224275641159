//! Durable events for [`eventbroker`] across instances, on NATS JetStream.
//!
//! Every instance publishes its events into one stream, and reads them from a durable consumer for each of its subscriptions. An accepted
//! publish is a message of the stream; the bridge acknowledges it when its handler has settled. The stream, its subjects and headers are
//! those of ResolveSpec's event broker, so both can share a stream.
//!
//! ```no_run
//! use eventbroker::{Broker, Event, Source, SubscribeOptions};
//! use eventbroker_nats::Nats;
//!
//! let broker = Broker::builder().provider(Nats::new("nats://localhost").open()?).start()?;
//! broker.subscribe_with(SubscribeOptions::new("shop.orders.*").name("mailer"), |delivery| {
//!     println!("{}", delivery.event().id());
//! })?;
//! broker.publish(Event::builder(Source::System, "shop.orders.create").build()?)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The asynchronous client of NATS runs on one thread of the provider; the bridge needs no runtime of the program. `docs/nats.md` has the
//! subjects, the rights that a user needs, and what survives which fault. The oldest supported server is nats-server 2.11.
//!
//! Members of a group compete for the stream, so the events of a key are in order within an instance; with [`Nats::partitions`] across
//! instances too.
#![cfg_attr(not(feature = "client"), allow(dead_code))]

#[cfg(feature = "client")]
mod consume;
#[cfg(feature = "client")]
mod housekeeping;
#[cfg(feature = "client")]
mod jetstream;
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
mod settings;
#[cfg(feature = "client")]
mod settle;
#[cfg(feature = "client")]
mod subscriptions;
#[cfg(feature = "client")]
mod transport;

pub use settings::{Nats, OpenError, Status, Storage};
