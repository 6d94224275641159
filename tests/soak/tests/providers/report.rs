//! The report of the runs: a table of figures with one column per provider, and whether each bound holds.

use std::collections::BTreeMap;
use std::time::Duration;

use super::books::Books;
use super::run::Plan;
use super::samples::Samples;

/// Deadline for publishing and handling to resume after a fault.
const RECOVERY: Duration = Duration::from_secs(5);
/// The maximum growth of memory, in MiB per hour.
const GROWTH: f64 = 1.0;

/// The results of the run of one provider.
pub(crate) struct Report {
    pub(crate) name: &'static str,
    pub(crate) promises_order: bool,
    pub(crate) books: Books,
    pub(crate) samples: Samples,
    /// The longest time to resume after a fault.
    pub(crate) slowest: Duration,
    /// Events accepted before a quiet time and not handled by its end.
    pub(crate) late: usize,
    /// Dead letters of the crash guard.
    pub(crate) blamed: usize,
}

/// A figure of one provider, and whether its bound holds.
struct Figure {
    shown: String,
    holds: bool,
}

fn note(shown: impl ToString) -> Figure {
    check(shown, true)
}

fn check(shown: impl ToString, holds: bool) -> Figure {
    Figure { shown: shown.to_string(), holds }
}

impl Report {
    fn figures(&self, plan: &Plan) -> Vec<(&'static str, Figure)> {
        let (books, account, repeats) = (&self.books, self.books.account(), self.books.repeats());
        let lost = account.lost() - self.blamed.min(account.lost());
        let mut kinds = BTreeMap::new();
        books.faults.iter().for_each(|fault| *kinds.entry(fault.what).or_insert(0) += 1);
        let kind = |what| note(kinds.get(what).copied().unwrap_or(0));
        let deaths = kinds.get("member killed").copied().unwrap_or(0);
        let allowed = repeats.under_way + books.unknown as usize;
        let order = if self.promises_order {
            check(account.out_of_order, account.out_of_order == 0)
        } else {
            note(format!("{} (no promise)", account.out_of_order))
        };
        let (memory_from, memory_to) = self.samples.memory();
        let slope = self.samples.slope();
        let descriptors = self.samples.begin_and_end(|it| it.descriptors);
        let threads = self.samples.begin_and_end(|it| it.threads);
        let constant = |(begin, end): (u64, u64)| check(format!("{begin} → {end}"), end <= begin);
        vec![
            ("accepted", note(books.counts().0)),
            ("faults", note(books.faults.len())),
            ("  back end killed", kind("back end killed")),
            ("  back end frozen", kind("back end frozen")),
            ("  back end closed all connections", kind("connections closed")),
            ("  answer lost", kind("answer lost")),
            ("  member killed", kind("member killed")),
            ("  member frozen", kind("member frozen")),
            ("lost (0)", check(lost, lost == 0)),
            ("handled, but never published (0)", check(books.extra(), books.extra() == 0)),
            ("blamed by the crash guard (≤ (kills - 1) / 2)", check(self.blamed, 2 * self.blamed < deaths.max(1))),
            ("handled again", note(repeats.all)),
            ("  bound: in flight at a fault, I", note(repeats.under_way)),
            ("  bound: publishes with unknown outcome, U", note(books.unknown)),
            ("  beyond I + U (0)", {
                let beyond = repeats.all.saturating_sub(allowed);
                check(beyond, beyond == 0)
            }),
            ("  without a known fault (0)", check(repeats.unexplained, repeats.unexplained == 0)),
            ("out of order within a key (0)", order),
            ("not handled by the end of a quiet time (0)", check(self.late, self.late == 0)),
            ("resumed after a fault within (5 s)", {
                check(format!("{:.1} s", self.slowest.as_secs_f64()), self.slowest <= RECOVERY)
            }),
            ("memory, half-time → end, MiB", note(format!("{memory_from:.1} → {memory_to:.1}"))),
            ("  growth, MiB/h (≤ 1)", check(format!("{slope:+.2}"), !plan.is_long || slope <= GROWTH)),
            ("descriptors, begin → end", constant(descriptors)),
            ("threads, begin → end", constant(threads)),
            ("other problems (0)", check(books.complaints.len(), books.complaints.is_empty())),
        ]
    }
}

/// Prints the reports. Returns whether every bound holds.
pub(crate) fn print(plan: &Plan, reports: &[Report]) -> bool {
    let columns: Vec<_> = reports.iter().map(|report| report.figures(plan)).collect();
    let names: Vec<&str> = reports.iter().map(|report| report.name).collect();
    println!("\n| | {} |\n|---|{}", names.join(" | "), "---|".repeat(names.len()));
    let rows = columns.first().map_or(0, Vec::len);
    for row in 0..rows {
        let shown = columns.iter().map(|column| {
            let figure = &column[row].1;
            if figure.holds { figure.shown.clone() } else { format!("{} BROKEN", figure.shown) }
        });
        println!("| {} | {} |", columns[0][row].0, shown.collect::<Vec<_>>().join(" | "));
    }
    for report in reports {
        report.books.complaints.iter().for_each(|complaint| println!("{}: {complaint}", report.name));
        report.books.unexplained().iter().for_each(|call| println!("{}: handled again: {call}", report.name));
    }
    columns.iter().flatten().all(|(_, figure)| figure.holds)
}
