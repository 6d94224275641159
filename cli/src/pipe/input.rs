//! Standard input: lines in, events published, bad lines reported. Waits for room, never gives an event up.

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

/// The longest line. A payload of a mebibyte fits, with metadata and white space.
const MAX_LINE_BYTES: u64 = 4 << 20;
const BUFFER_BYTES: usize = 256 * 1024;
/// While too many events are open: how long until the next try.
const PAUSE: Duration = Duration::from_millis(1);

/// See the module's page.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) broker: Broker,
    /// The source of events that come from no eventbroker.
    pub(super) foreign: Source,
    pub(super) totals: Arc<Totals>,
    pub(super) ledger: Option<Arc<Ledger>>,
    /// Whether to end before the input does.
    pub(super) ending: Arc<AtomicBool>,
    /// Report as JSON.
    pub(super) json: bool,
}

impl Input {
    /// Reads until the input or the broker ends.
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
        // A quick look, since most lines are of one form; `decode` knows for sure.
        let may_be_foreign = memmem::find(line, b"\"specversion\"").is_some();
        if may_be_foreign && let Some(decoded) = cloudevents::decode(line, self.foreign) {
            return decoded;
        }
        Event::from_json(line).map_err(Fault::from)
    }

    /// Publishes, and waits for room as long as it takes.
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
                // The end: the line counts as read, the event not as accepted.
                Err(PublishError::Full { .. } | PublishError::NotRunning { .. }) => return Ok(()),
                Err(PublishError::Invalid { reason, .. }) => return Err(reason.into()),
                Err(PublishError::IdConflict { .. }) => {
                    return Err(Fault::new("id", "is that of an earlier event with other content"));
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
