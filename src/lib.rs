#![doc = include_str!("guide/links.md")]
#![doc = include_str!("../README.md")]

mod base;
mod bridge;
mod broker;
mod config;
mod engine;
#[cfg_attr(not(feature = "internals"), allow(unreachable_pub, reason = "public through `internals` only"))]
mod event;
pub mod guide;
pub mod hooks;
mod outcome;
pub mod provider;
mod queue;
#[cfg_attr(not(feature = "internals"), allow(unreachable_pub, reason = "public through `internals` only"))]
mod router;
mod store;
mod subscription;
mod telemetry;

pub use base::ManualClock;
pub use bridge::Receipt;
#[cfg(feature = "signals")]
pub use broker::run_until_signal;
pub use broker::{Broker, BrokerBuilder, EventStream, Publisher, StreamItem, global};
pub use config::{Config, Confirm, Mode, Overflow, RetryPolicy, Scope, StartPosition, SubscribeOptions};
pub use event::{Event, EventBuilder, EventId, EventType, Pattern, Payload, Source, Status, event_type};
pub use outcome::{
    Accepted, DeliveryReport, PublishError, Settled, StopReport, SubscriptionId, SyncReport, Verdict, dead_letter,
    error, query, stats,
};
pub use subscription::{Delivery, HandlerError, IntoOutcome, Outcome};
pub use telemetry::{metrics, trace};

/// Internals for this package's own benches and fuzz targets.
/// No stability guarantee.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::event::matches;
    pub use crate::router::{Route, Router};
}
