//! The line that shows the demonstration at work, on a terminal only.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::report::thousands;
use super::writers::Store;

/// How often the line changes.
const INTERVAL: Duration = Duration::from_millis(200);
/// Back to the beginning of the line, and away with what stands there.
const ERASE: &str = "\r\x1b[K";

/// One line on standard error, written over and over.
pub(super) struct LiveLine {
    /// None if nobody sees it.
    last: Option<Seen>,
    closes: Duration,
}

/// What the last line showed.
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
        // Short enough for a terminal of 80 columns: a line that wraps can't be written over.
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

/// If nobody can be shown anything, there is nobody to tell either.
fn write(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}
