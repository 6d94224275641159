//! The counts that `pipe` reports at its end.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use eventbroker::stats::Stats;
use serde::Serialize;

use crate::{complain, signals};

/// The counters of the reader.
#[derive(Debug, Default)]
pub(super) struct Totals {
    pub(super) lines: AtomicU64,
    pub(super) bad: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) duplicates: AtomicU64,
}

/// The report. With `--json` the counts are printed under these names.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    lines: u64,
    bad_lines: u64,
    accepted: u64,
    duplicates: u64,
    /// Deliveries that were written to the output.
    done: u64,
    /// Deliveries that failed permanently.
    failed: u64,
    /// Accepted events that were not handled before the stop.
    not_handled: usize,
    signal: Option<i32>,
    seconds: f64,
}

impl Report {
    pub(super) fn new(totals: &Totals, stats: &Stats, not_handled: usize, elapsed: Duration) -> Self {
        Self {
            lines: totals.lines.load(Ordering::Relaxed),
            bad_lines: totals.bad.load(Ordering::Relaxed),
            accepted: totals.accepted.load(Ordering::Relaxed),
            duplicates: totals.duplicates.load(Ordering::Relaxed),
            done: stats.deliveries.done,
            failed: stats.deliveries.dead,
            not_handled,
            signal: signals::received(),
            seconds: elapsed.as_secs_f64(),
        }
    }

    /// Whether every line was a valid event and every delivery was done.
    pub(super) fn is_complete(&self) -> bool {
        self.bad_lines == 0 && self.failed == 0 && self.not_handled == 0
    }

    /// Prints the report to standard error.
    pub(super) fn print(&self, json: bool) {
        if json {
            complain(&serde_json::json!(self).to_string());
            return;
        }
        let Self { lines, bad_lines, accepted, duplicates, done, failed, not_handled, signal, seconds } = self;
        let mut text = format!("eventbroker: {lines} lines read, {accepted} events accepted, {done} deliveries done");
        let counted = [(*duplicates, "duplicates"), (*bad_lines, "bad lines"), (*failed, "deliveries failed")];
        for (count, what) in counted.into_iter().filter(|(count, _)| *count > 0) {
            text.push_str(&format!(", {count} {what}"));
        }
        if *not_handled > 0 {
            text.push_str(&format!(", {not_handled} events not handled"));
        }
        let rate = *lines as f64 / seconds.max(0.001);
        text.push_str(&format!("; {seconds:.1} s, {rate:.0} lines/s"));
        if signal.is_some() {
            text.push_str("; stopped by a signal");
        }
        complain(&text);
    }
}
