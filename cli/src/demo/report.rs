//! The report at the end of the demo: a table as text, or one JSON object.

use std::fmt::{self, Write};

use serde::Serialize;

use super::reconcile::{Changes, Check};
use super::shop::{ENTITIES, SCHEMA};

/// The whole report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Whether every check holds.
    pub(super) reconciled: bool,
    /// Whether a signal ended the run early.
    pub(super) interrupted: bool,
    /// The time that the clerks worked.
    pub(super) seconds: f64,
    pub(super) threads: usize,
    /// The provider that held the events.
    pub(super) provider: &'static str,
    pub(super) transactions: Transactions,
    /// Committed changes by event type.
    pub(super) changes: Changes,
    pub(super) events: Events,
    pub(super) subscriptions: Vec<Subscription>,
    pub(super) cache: CacheUse,
    pub(super) checks: Vec<Check>,
}

#[derive(Debug, Serialize)]
pub(super) struct Transactions {
    pub(super) committed: u64,
    pub(super) rolled_back: u64,
    /// Transactions among the rolled-back ones that a before-hook rejected.
    pub(super) vetoed: u64,
    pub(super) savepoints_rolled_back: u64,
    /// Pauses of a clerk because a queue was half full.
    pub(super) pauses: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct Events {
    pub(super) accepted: u64,
    pub(super) refused: u64,
    pub(super) completed: u64,
    pub(super) failed: u64,
    pub(super) dead_letters: u64,
    pub(super) retries: u64,
    /// Held in the store at the end.
    pub(super) stored: u64,
    /// The bound of the store (`max_events`); none with a back end.
    pub(super) max_stored: Option<u64>,
}

#[derive(Debug, Serialize)]
pub(super) struct Subscription {
    pub(super) name: String,
    pub(super) pattern: String,
    pub(super) done: u64,
    pub(super) retries: u64,
    pub(super) dead: u64,
}

#[derive(Debug, Serialize)]
pub(super) struct CacheUse {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) invalidations: u64,
}

impl Report {
    fn per_second(&self, count: u64) -> String {
        thousands((count as f64 / self.seconds.max(0.001)).round() as u64)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transactions, events, cache, .. } = self;
        let threads = if self.threads == 1 { "thread" } else { "threads" };
        let early = if self.interrupted { ", interrupted" } else { "" };
        writeln!(f, "A SQLite shop with {} {threads}, {:.1} s{early}\n", self.threads, self.seconds)?;

        writeln!(
            f,
            "{:<22}{:>12}{:>12}/s",
            "transactions",
            thousands(transactions.committed),
            self.per_second(transactions.committed)
        )?;
        writeln!(
            f,
            "{:<22}{:>12}  {} of them rejected by a hook",
            "  rolled back",
            thousands(transactions.rolled_back),
            thousands(transactions.vetoed)
        )?;
        writeln!(f, "{:<22}{:>12}", "  savepoints undone", thousands(transactions.savepoints_rolled_back))?;
        writeln!(f, "{:<22}{:>12}{:>12}/s", "events", thousands(events.accepted), self.per_second(events.accepted))?;
        let bound = events
            .max_stored
            .map_or_else(|| "in the back end".to_owned(), |most| format!("of at most {}", thousands(most)));
        writeln!(f, "{:<22}{:>12}  {bound}", "  still in the store", thousands(events.stored))?;
        writeln!(f, "{:<22}{:>12}  at half-full queues", "pauses of the clerks", thousands(transactions.pauses))?;
        let reads = cache.hits + cache.misses;
        let share = 100.0 * cache.hits as f64 / reads.max(1) as f64;
        writeln!(f, "{:<22}{:>12}  {share:.0} % from the cache\n", "products read", thousands(reads))?;

        writeln!(f, "{:<22}{:>12}{:>12}{:>12}", "committed changes", "create", "update", "delete")?;
        for entity in ENTITIES {
            let counts = ["create", "update", "delete"].map(|operation| {
                let count = self.changes.get(&format!("{SCHEMA}.{entity}.{operation}"));
                count.map_or_else(|| "–".to_owned(), |count| thousands(*count))
            });
            writeln!(f, "  {entity:<20}{:>12}{:>12}{:>12}", counts[0], counts[1], counts[2])?;
        }

        writeln!(f, "\n{:<10}{:<24}{:>12}{:>10}{:>8}", "handler", "pattern", "done", "retries", "dead")?;
        for it in &self.subscriptions {
            let (done, retries, dead) = (thousands(it.done), thousands(it.retries), thousands(it.dead));
            writeln!(f, "  {:<8}{:<24}{done:>12}{retries:>10}{dead:>8}", it.name, it.pattern)?;
        }

        writeln!(f, "\nreconciliation")?;
        for Check { sides, left, right, ok, .. } in &self.checks {
            let (mark, sign) = if *ok { ("✓", "=") } else { ("✗", "≠") };
            let (left, right) = (thousands(*left), thousands(*right));
            write!(f, "  {mark} {:<40}{left:>12}", sides.0)?;
            match sides.1 {
                "" if *ok => writeln!(f)?,
                "" => writeln!(f, " {sign} {right}")?,
                side => writeln!(f, " {sign} {right:<10} {side}")?,
            }
        }
        let wrong = self.checks.iter().filter(|check| !check.ok).count();
        match wrong {
            0 => writeln!(f, "\nEverything adds up."),
            1 => writeln!(f, "\n1 sum is wrong."),
            _ => writeln!(f, "\n{wrong} sums are wrong."),
        }
    }
}

/// Formats a number with commas as thousands separators.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        // Writing to a `String` cannot fail.
        let _ = write!(text, "{digit}");
    }
    text
}
