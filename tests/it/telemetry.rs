//! Statistics, metrics, observers and streams.

mod metrics_counts;
#[cfg(feature = "metrics")]
mod metrics_facade;
#[cfg(feature = "prometheus")]
mod metrics_prometheus;
mod settled_observers;
mod stats_totals;
mod streams;
