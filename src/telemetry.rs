//! What is counted and traced. Counts and reports; never decides.

mod counters;
pub mod metrics;
mod series;
pub mod trace;

pub(crate) use counters::Counters;
pub(crate) use series::Series;
pub use series::{Histogram, TypeMetrics};
pub(crate) use trace::{Propagator, SharedPropagator};

/// What one broker counts and traces with.
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
