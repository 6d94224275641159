//! The results of operations as values: verdicts, errors, dead letters, pages and totals. The rooms above produce them.

pub mod dead_letter;
pub mod error;
pub mod query;
pub mod stats;
mod stop_report;
mod verdict;

pub(crate) use dead_letter::{AttemptError, DeadLetter, DeadLetterFilter, DeadReason, NOTICE_TYPE};
pub use error::PublishError;
pub(crate) use error::{
    BackendError, FullLimit, RequeueError, StartError, StreamError, SubscribeError, UnknownSubscription,
};
pub(crate) use query::{Filter, Order, Page};
pub(crate) use stats::{BackEndStats, BridgeStats, DeliveryTotals, Stats, StoreStats, SubscriptionStats};
pub use stop_report::StopReport;
pub use verdict::{Accepted, DeliveryReport, Settled, SubscriptionId, SyncReport, Verdict};
