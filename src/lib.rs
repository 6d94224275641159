#![doc = include_str!("guide/links.md")]
#![doc = include_str!("../README.md")]

mod admission;
mod bridge;
mod broker;
mod builder;
mod clock;
mod codec;
mod config;
pub mod dead_letter;
mod delay;
mod delivery;
mod dispatch;
mod engine;
pub mod error;
mod event;
pub mod global;
pub mod guide;
mod handler;
mod hash;
pub mod hooks;
mod inbox;
mod lane;
mod lifecycle;
mod lookup;
pub mod metrics;
mod operator;
#[cfg_attr(not(feature = "internals"), allow(unreachable_pub, reason = "public through `internals` only"))]
mod pattern;
mod pause;
mod pool;
pub mod provider;
mod publisher;
pub mod query;
mod receipt;
mod retry;
#[cfg_attr(not(feature = "internals"), allow(unreachable_pub, reason = "public through `internals` only"))]
mod router;
mod series;
mod settle;
#[cfg(feature = "signals")]
mod signals;
pub mod stats;
mod store;
mod stream;
mod subscription;
mod timer;
pub mod trace;
mod verdict;
mod watch;
mod worker;

pub use broker::Broker;
pub use builder::BrokerBuilder;
pub use clock::ManualClock;
pub use config::{Config, Confirm, Mode, Overflow, Scope, StartPosition, SubscribeOptions};
pub use delivery::Delivery;
pub use error::PublishError;
pub use event::{Event, EventBuilder, EventId, EventType, Payload, Source, Status, event_type};
pub use handler::{HandlerError, IntoOutcome, Outcome};
pub use lifecycle::StopReport;
pub use pattern::Pattern;
pub use publisher::Publisher;
pub use receipt::Receipt;
pub use retry::RetryPolicy;
#[cfg(feature = "signals")]
pub use signals::run_until_signal;
pub use stream::{EventStream, StreamItem};
pub use verdict::{Accepted, DeliveryReport, Settled, SubscriptionId, SyncReport, Verdict};

/// Doors for this package's own benches and fuzz targets. Nothing here is promised.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::pattern::matches;
    pub use crate::router::{Route, Router};
}
