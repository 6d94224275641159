//! Standard input: reads lines, publishes events, reports bad lines. A full queue blocks the reader; no event is
//! dropped.

use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use eventbroker::{Broker, Event, PublishError, Source};
use memchr::memmem;

use super::report::Totals;
use super::status::Ledger;
use crate::cloudevents::{self, Fault};
use crate::complain;
use crate::exit::Failure;

/// The maximum length of a line. A payload of 1 MiB fits, with metadata and white space.
const MAX_LINE_BYTES: u64 = 4 << 20;
const BUFFER_BYTES: usize = 256 * 1024;
/// How long to wait before publishing again after `PublishError::Full`.
const PAUSE: Duration = Duration::from_millis(1);

/// The reader; runs on a thread of its own.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) broker: Broker,
    /// The source of CloudEvents from elsewhere than eventbroker.
    pub(super) foreign: Source,
    pub(super) totals: Arc<Totals>,
    pub(super) ledger: Option<Arc<Ledger>>,
    /// Whether to stop before the end of the input.
    pub(super) ending: Arc<AtomicBool>,
    /// Report bad lines as JSON.
    pub(super) json: bool,
}

impl Input {
    /// Reads until the end of the input, or until `ending` is set.
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut input = BufReader::with_capacity(BUFFER_BYTES, io::stdin().lock());
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = input.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line);
            let bytes = read.map_err(|error| Failure::new(format_args!("cannot read standard input: {error}")))?;
            if bytes == 0 || self.ending.load(Ordering::Relaxed) {
                return Ok(());
            }
            let number = self.totals.lines.fetch_add(1, Ordering::Relaxed) + 1;
            let fault = if bytes as u64 == MAX_LINE_BYTES && line.last() != Some(&b'\n') {
                input.skip_until(b'\n')?;
                Some(Fault::new("event", format_args!("is longer than {MAX_LINE_BYTES} bytes, the most for a line")))
            } else if line.trim_ascii().is_empty() {
                None
            } else {
                match self.decode(&line) {
                    Ok(event) => self.publish(event).err(),
                    Err(fault) => Some(fault),
                }
            };
            if let Some(fault) = fault {
                self.totals.bad.fetch_add(1, Ordering::Relaxed);
                self.report(number, &fault);
            }
        }
    }

    fn decode(&self, line: &[u8]) -> Result<Event, Fault> {
        // A fast substring search first, since most lines are of one form; `decode` decides.
        let may_be_foreign = memmem::find(line, b"\"specversion\"").is_some();
        if may_be_foreign && let Some(decoded) = cloudevents::decode(line, self.foreign) {
            return decoded;
        }
        Event::from_json(line).map_err(Fault::from)
    }

    /// Publishes an event, and retries while the broker is full.
    fn publish(&self, mut event: Event) -> Result<(), Fault> {
        loop {
            let event_type = event.event_type().clone();
            match self.broker.publish(event) {
                Ok(accepted) if accepted.duplicate => {
                    self.totals.duplicates.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Ok(accepted) => {
                    if let Some(ledger) = &self.ledger {
                        ledger.accepted(&accepted, &event_type);
                    }
                    self.totals.accepted.fetch_add(1, Ordering::Relaxed);
                    return Ok(());
                }
                Err(PublishError::Full { event: refused, .. }) if !self.ending.load(Ordering::Relaxed) => {
                    event = *refused;
                    thread::sleep(PAUSE);
                }
                // `pipe` is stopping: the line counts as read, the event not as accepted.
                Err(PublishError::Full { .. } | PublishError::NotRunning { .. }) => return Ok(()),
                Err(PublishError::Invalid { reason, .. }) => return Err(reason.into()),
                Err(PublishError::IdConflict { .. }) => {
                    return Err(Fault::new("id", "is the id of an earlier event with other content"));
                }
                Err(error) => return Err(Fault::new("event", error)),
            }
        }
    }

    fn report(&self, line: u64, fault: &Fault) {
        let Fault { field, problem } = fault;
        if self.json {
            complain(&serde_json::json!({ "line": line, "field": field, "problem": problem }).to_string());
        } else {
            complain(&format!("eventbroker: line {line}: {field}: {problem}"));
        }
    }
}
