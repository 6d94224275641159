//! A `tracing` subscriber that collects all spans and events as text.

use std::fmt::{Debug, Write as _};
use std::sync::{Arc, Mutex, Once, Weak};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event as Trace, Metadata, Subscriber};

/// The text of all traces of this process, collected until this is dropped.
#[derive(Debug)]
pub struct Traces(Arc<Mutex<String>>);

/// The text of the [`Traces`] that record now.
static CURRENT: Mutex<Weak<Mutex<String>>> = Mutex::new(Weak::new());

impl Traces {
    /// Collects everything that this process traces from now on. Earlier `Traces` collect no more.
    pub fn of_process() -> Self {
        static INSTALLED: Once = Once::new();
        INSTALLED.call_once(|| tracing::subscriber::set_global_default(Recorder).expect("no other subscriber"));
        let traces = Self(Arc::default());
        *CURRENT.lock().expect("no panic under the lock") = Arc::downgrade(&traces.0);
        traces
    }

    /// The text so far.
    pub fn text(&self) -> String {
        self.0.lock().expect("no panic under the lock").clone()
    }
}

/// The subscriber of the process: a process can have only one, and keeps it.
struct Recorder;

fn current() -> Option<Arc<Mutex<String>>> {
    CURRENT.lock().expect("no panic under the lock").upgrade()
}

impl Visit for Recorder {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if let Some(text) = current() {
            writeln!(text.lock().expect("no panic under the lock"), "{field}={value:?}").expect("a text grows");
        }
    }
}

impl Subscriber for Recorder {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        current().is_some()
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut Self);
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Self);
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, event: &Trace<'_>) {
        event.record(&mut Self);
    }
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
