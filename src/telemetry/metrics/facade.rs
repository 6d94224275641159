//! Pushing metrics through the facade of the crate `metrics`, for programs that have installed a recorder.

use std::collections::HashMap;

use super::{Histogram, Labels, Metrics, Value};

/// Pushes metrics to the recorder that the program has installed.
///
/// The series are those of the [module's page](super), without `_total`. Keeps the histograms of the last push.
///
/// ```
/// use eventbroker::metrics::Push;
///
/// let broker = eventbroker::Broker::builder().start()?;
/// let mut push = Push::default();
/// // Every few seconds, on a thread of yours:
/// push.push(&broker.metrics());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct Push {
    pushed: HashMap<(&'static str, Labels), Histogram>,
}

impl Push {
    /// Pushes a snapshot of one broker, always the same.
    ///
    /// Sets counters and gauges. Of a histogram it records the durations that are new since the last call, each as the
    /// upper bound of its bucket (the last bucket: twice the highest bound). Blocks as long as the recorder does.
    pub fn push(&mut self, metrics: &Metrics) {
        for figure in metrics.figures() {
            let name = format!("eventbroker_{}", figure.name);
            for (labels, value) in figure.values {
                match value {
                    Value::Count(count) => ::metrics::counter!(name.clone(), &labels).absolute(count),
                    Value::Level(level) => ::metrics::gauge!(name.clone(), &labels).set(level),
                    Value::Times(times) => {
                        let histogram = ::metrics::histogram!(name.clone(), &labels);
                        let before = self.pushed.insert((figure.name, labels), times).unwrap_or_default();
                        let beyond = Histogram::BOUNDS.last().map(|last| 2 * *last);
                        let bounds = Histogram::BOUNDS.into_iter().chain(beyond);
                        for ((bound, count), before) in bounds.zip(times.counts()).zip(before.counts()) {
                            let new = usize::try_from(count.saturating_sub(*before)).unwrap_or(usize::MAX);
                            histogram.record_many(bound.as_secs_f64(), new);
                        }
                    }
                }
            }
        }
    }
}
