//! A `tracing` subscriber that collects all spans and events as text.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event as Trace, Metadata, Subscriber};

/// The collected text.
#[derive(Debug, Clone, Default)]
pub struct Traces(Arc<Mutex<String>>);

impl Traces {
    /// Installs the subscriber for the whole process.
    pub fn of_process() -> Self {
        let traces = Self::default();
        tracing::subscriber::set_global_default(traces.clone()).expect("no other subscriber is installed");
        traces
    }

    /// The text so far.
    pub fn text(&self) -> String {
        self.0.lock().expect("no panic under the lock").clone()
    }
}

impl Visit for Traces {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = self.0.lock().expect("no panic under the lock");
        writeln!(text, "{field}={value:?}").expect("a text grows");
    }
}

impl Subscriber for Traces {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut self.clone());
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut self.clone());
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Trace<'_>) {
        event.record(&mut self.clone());
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
