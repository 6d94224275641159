//! Counters, metrics and traces of a broker. This room counts and reports; decisions are in the engine.

mod counters;
pub mod metrics;
mod series;
pub mod trace;

pub(crate) use counters::Counters;
pub(crate) use series::Series;
pub use series::{Histogram, TypeMetrics};
pub(crate) use trace::{Propagator, SharedPropagator};

/// The counters of one broker, its counts by event type, and its propagator.
pub(crate) struct Telemetry {
    pub(crate) counters: Counters,
    pub(crate) series: Series,
    pub(crate) propagator: Option<SharedPropagator>,
}

impl Telemetry {
    pub(crate) fn new(propagator: Option<SharedPropagator>) -> Self {
        Self { counters: Counters::default(), series: Series::default(), propagator }
    }
}
