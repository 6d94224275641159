//! The progress line, shown only on a terminal.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::report::thousands;
use super::writers::Store;

/// Interval of the updates.
const INTERVAL: Duration = Duration::from_millis(200);
/// Carriage return, and erase to the end of the line.
const ERASE: &str = "\r\x1b[K";

/// One line on standard error, overwritten by each update.
pub(super) struct LiveLine {
    /// None if standard error is not a terminal.
    last: Option<Seen>,
    closes: Duration,
}

/// The counts at the last update.
#[derive(Default)]
struct Seen {
    at: Duration,
    committed: u64,
    accepted: u64,
}

impl LiveLine {
    pub(super) fn new(closes: Duration) -> Self {
        Self { last: io::stderr().is_terminal().then(Seen::default), closes }
    }

    pub(super) fn show(&mut self, at: Duration, store: &Store) {
        let Some(last) = self.last.as_mut().filter(|last| at >= last.at + INTERVAL) else { return };
        let stats = store.broker.stats();
        let now = Seen { at, committed: store.tally.committed.load(Ordering::Relaxed), accepted: stats.accepted };
        let per_second = |count: u64| thousands((count as f64 / (at - last.at).as_secs_f64()) as u64);
        let waiting: u64 = stats.subscriptions.iter().map(|it| it.queued + it.waiting).sum();
        // At most 80 columns: a line that wraps cannot be overwritten.
        let line = format!(
            "{:.1}/{} s   {} transactions/s   {} events/s   {} waiting   {} dead",
            at.as_secs_f64(),
            self.closes.as_secs(),
            per_second(now.committed - last.committed),
            per_second(now.accepted - last.accepted),
            thousands(waiting),
            thousands(stats.dead_letters),
        );
        write(&format!("{ERASE}{line}"));
        *last = now;
    }

    pub(super) fn clear(&mut self) {
        if self.last.take().is_some() {
            write(ERASE);
        }
    }
}

/// Writes to standard error. A write error is ignored: it only concerns the progress line.
fn write(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
