//! The wait of one `publish_sync`: workers report each verdict here, and the publisher sleeps until the last one.

use parking_lot::{Condvar, Mutex};
use tracing::Span;

use crate::base::Clock;
use crate::outcome::DeliveryReport;

/// The verdicts that a publisher waits for.
#[derive(Debug)]
pub(crate) struct SyncWait {
    /// The handler calls that wait for this publish, as (broker, subscription): those on its thread, and those that
    /// wait for them. A call of these deliveries inherits them, so that a cycle of waits across threads is detected.
    pub(crate) callers: Vec<(u64, u64)>,
    /// The span of the publish, until its wait is over.
    span: Option<Box<Mutex<Span>>>,
    verdicts: Mutex<Verdicts>,
    changed: Condvar,
}

#[derive(Debug)]
struct Verdicts {
    expected: usize,
    settled: Vec<DeliveryReport>,
}

impl SyncWait {
    pub(crate) fn new(callers: Vec<(u64, u64)>, span: Option<Span>, expected: usize) -> Self {
        let verdicts = Verdicts { expected, settled: Vec::with_capacity(expected) };
        Self {
            callers,
            span: span.map(|span| Box::new(Mutex::new(span))),
            verdicts: Mutex::new(verdicts),
            changed: Condvar::new(),
        }
    }

    /// The span of the publish, the parent of the spans of its attempts.
    pub(crate) fn span(&self) -> Span {
        self.span.as_ref().map_or_else(Span::none, |span| span.lock().clone())
    }

    /// Reports the verdict of one delivery.
    pub(crate) fn note(&self, report: DeliveryReport) {
        let mut verdicts = self.verdicts.lock();
        verdicts.settled.push(report);
        if verdicts.settled.len() >= verdicts.expected {
            self.changed.notify_all();
        }
    }

    pub(crate) fn is_complete(&self) -> bool {
        let verdicts = self.verdicts.lock();
        verdicts.settled.len() >= verdicts.expected
    }

    /// Waits once, for the last verdict, at most until `deadline`; may return earlier.
    pub(crate) fn wait_a_moment(&self, clock: &Clock, deadline: u64) {
        let mut verdicts = self.verdicts.lock();
        if verdicts.settled.len() < verdicts.expected {
            clock.wait(&self.changed, &mut verdicts, deadline);
        }
    }

    /// Waits until every verdict is reported, at most until `deadline`. Returns the verdicts reported by then.
    pub(crate) fn wait(&self, clock: &Clock, deadline: u64) -> Vec<DeliveryReport> {
        let mut verdicts = self.verdicts.lock();
        while verdicts.settled.len() < verdicts.expected && clock.wait(&self.changed, &mut verdicts, deadline) {}
        let settled = std::mem::take(&mut verdicts.settled);
        drop(verdicts);
        if let Some(span) = &self.span {
            // Ends the span of the publish now: the record, which holds this wait, may live on for long.
            let ended = std::mem::replace(&mut *span.lock(), Span::none());
            drop(ended);
        }
        settled
    }
}
