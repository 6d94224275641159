//! The lines of `--status`: one per accepted event, written when its last delivery has ended.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use eventbroker::{Accepted, Broker, EventId, EventType, Settled, Verdict};
use serde::Serialize;

use super::is_notice;
use super::output::Output;

/// The line. Readers distinguish it from an event by the field `deliveries` and the absence of `payload`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    id: String,
    #[serde(rename = "type")]
    event_type: &'a str,
    status: &'static str,
    deliveries: &'a [End],
}

/// The end of one delivery.
#[derive(Debug, Serialize)]
struct End {
    pattern: String,
    verdict: &'static str,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

/// An event with open deliveries, or whose publish has not returned yet.
#[derive(Debug)]
struct Open {
    event_type: EventType,
    /// The number of deliveries; known once the publish has returned.
    expected: Option<usize>,
    ended: Vec<End>,
}

/// Collects the ends of the deliveries of each open event. Bounded by the open events of the broker.
#[derive(Debug)]
pub(super) struct Ledger {
    open: Mutex<HashMap<EventId, Open>>,
    output: Arc<Output>,
}

impl Ledger {
    /// Observes every settled delivery of a broker.
    pub(super) fn watch(broker: &Broker, output: &Arc<Output>) -> Arc<Self> {
        let ledger = Arc::new(Self { open: Mutex::default(), output: Arc::clone(output) });
        let (observer, instance) = (Arc::clone(&ledger), broker.instance_id().to_owned());
        broker.on_settled(move |settled| {
            if !is_notice(settled.event, &instance) {
                observer.settled(settled);
            }
        });
        ledger
    }

    /// Records that the broker has accepted an event, and with how many deliveries.
    pub(super) fn accepted(&self, accepted: &Accepted, event_type: &EventType) {
        self.note(&accepted.id, event_type, |open| open.expected = Some(accepted.deliveries));
    }

    fn settled(&self, settled: &Settled<'_>) {
        let end = End {
            pattern: settled.name.to_owned(),
            verdict: verdict_name(settled.verdict),
            attempts: settled.attempts,
            error: settled.error.map(str::to_owned),
        };
        self.note(settled.event.id(), settled.event.event_type(), |open| open.ended.push(end));
    }

    fn note(&self, id: &EventId, event_type: &EventType, change: impl FnOnce(&mut Open)) {
        let mut events = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || Open { event_type: event_type.clone(), expected: None, ended: Vec::new() };
        let open = events.entry(id.clone()).or_insert_with(new);
        change(open);
        if open.expected != Some(open.ended.len()) {
            return;
        }
        let ended = events.remove(id);
        drop(events);
        if let Some(Open { event_type, ended, .. }) = ended {
            self.write(id, &event_type, &ended);
        }
    }

    fn write(&self, id: &EventId, event_type: &EventType, deliveries: &[End]) {
        let is_failed = deliveries.iter().any(|end| end.verdict == verdict_name(Verdict::Dead));
        let status = if is_failed { "failed" } else { "completed" };
        let line = Line { id: id.to_string(), event_type: event_type.as_str(), status, deliveries };
        self.output.line(serde_json::json!(line).to_string().into_bytes());
    }
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Done => "done",
        Verdict::Skipped => "skipped",
        Verdict::Dead => "failed",
        _ => "cancelled",
    }
}
