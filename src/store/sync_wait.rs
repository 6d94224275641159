//! Waiting for the deliveries of one `publish_sync`: each verdict is noted here, the publisher sleeps until all are in.

use parking_lot::{Condvar, Mutex};
use tracing::Span;

use crate::base::Clock;
use crate::outcome::DeliveryReport;

/// The verdicts that a publisher waits for.
#[derive(Debug)]
pub(crate) struct SyncWait {
    /// What the publisher was inside of: (broker, subscription) of each call on its thread and on those that wait for it.
    /// A call that runs for this watch inherits them, so that a cycle of waits is seen across threads.
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

    /// The span that the calls for this watch are part of.
    pub(crate) fn span(&self) -> Span {
        self.span.as_ref().map_or_else(Span::none, |span| span.lock().clone())
    }

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

    /// Waits for the last verdict, at most until `deadline`.
    pub(crate) fn wait_a_moment(&self, clock: &Clock, deadline: u64) {
        let mut verdicts = self.verdicts.lock();
        if verdicts.settled.len() < verdicts.expected {
            clock.wait(&self.changed, &mut verdicts, deadline);
        }
    }

    /// Waits until every verdict is in, at most until `deadline`; returns those that are.
    pub(crate) fn wait(&self, clock: &Clock, deadline: u64) -> Vec<DeliveryReport> {
        let mut verdicts = self.verdicts.lock();
        while verdicts.settled.len() < verdicts.expected && clock.wait(&self.changed, &mut verdicts, deadline) {}
        let settled = std::mem::take(&mut verdicts.settled);
        drop(verdicts);
        if let Some(span) = &self.span {
            // The record may outlive the publish by far.
            let ended = std::mem::replace(&mut *span.lock(), Span::none());
            drop(ended);
        }
        settled
    }
}
