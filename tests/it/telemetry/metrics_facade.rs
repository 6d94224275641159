//! Metrics pushed through the facade of the crate `metrics`: counters and gauges as absolute values, histograms as new
//! observations.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use eventbroker::Broker;
use eventbroker::metrics::Push;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

use crate::support::{event, wait_until};

/// The values that the recorder received, by name and labels.
type Received = Arc<Mutex<HashMap<String, f64>>>;

#[derive(Debug)]
struct One {
    name: String,
    told: Received,
}

impl One {
    fn change(&self, change: impl FnOnce(f64) -> f64) {
        let mut told = self.told.lock().expect("no panic");
        let value = told.entry(self.name.clone()).or_default();
        *value = change(*value);
    }
}

impl CounterFn for One {
    fn increment(&self, value: u64) {
        self.change(|before| before + value as f64);
    }
    fn absolute(&self, value: u64) {
        self.change(|_| value as f64);
    }
}

impl GaugeFn for One {
    fn increment(&self, value: f64) {
        self.change(|before| before + value);
    }
    fn decrement(&self, value: f64) {
        self.change(|before| before - value);
    }
    fn set(&self, value: f64) {
        self.change(|_| value);
    }
}

/// Counts the observations of a histogram.
impl HistogramFn for One {
    fn record(&self, _: f64) {
        self.change(|before| before + 1.0);
    }
}

#[derive(Debug, Default)]
struct Notes(Received);

impl Notes {
    fn one(&self, key: &Key) -> Arc<One> {
        let labels: Vec<String> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        Arc::new(One { name: format!("{}{{{}}}", key.name(), labels.join(",")), told: Arc::clone(&self.0) })
    }
}

impl Recorder for Notes {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.one(key))
    }
    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.one(key))
    }
    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.one(key))
    }
}

#[test]
fn counters_and_gauges_are_set_and_histograms_get_new_observations() {
    let broker = Broker::builder().start().expect("a broker");
    broker.subscribe("*", |_| ()).expect("a subscription");
    let notes = Notes::default();
    let mut push = Push::default();
    for published in [3.0, 5.0] {
        while broker.stats().accepted < published as u64 {
            broker.publish(event("shop.sold")).expect("accepted");
        }
        wait_until("all are done", || broker.stats().in_flight == 0);
        // Twice: the second push has no new observations.
        for _ in 0..2 {
            metrics::with_local_recorder(&notes, || push.push(&broker.metrics()));
            let told = notes.0.lock().expect("no panic");
            let figure = |name: &str| *told.get(name).unwrap_or_else(|| panic!("{name} was not pushed: {told:?}"));
            assert_eq!(figure("eventbroker_events_published{source=system,type=shop.sold}"), published);
            assert_eq!(
                figure("eventbroker_events_processed{source=system,type=shop.sold,status=completed}"),
                published
            );
            assert_eq!(
                figure("eventbroker_event_processing_duration_seconds{source=system,type=shop.sold}"),
                published
            );
            assert_eq!(figure("eventbroker_deliveries{verdict=done}"), published);
            assert_eq!(figure("eventbroker_workers{}"), 10.0);
        }
    }
}
