//! The ledger: the accepted events, the calls that members logged, and the account of the two. It follows Jepsen's
//! queue tests: an event is identified by publisher, number and key, and losses are counted at the beginning, middle
//! and end.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Mutex;

use eventbroker::Event;

/// An append-only file of lines. They survive the death of the writing process, but not a crash of the machine.
#[derive(Debug)]
pub struct Ledger(Mutex<File>);

impl Ledger {
    /// Opens the file, or creates it.
    pub fn open(path: &Path) -> Self {
        Self(Mutex::new(OpenOptions::new().append(true).create(true).open(path).expect("a ledger file")))
    }

    /// Appends a line in one write.
    pub fn write(&self, line: &str) {
        let line = format!("{line}\n");
        self.0.lock().expect("no panic under the lock").write_all(line.as_bytes()).expect("a line is written");
    }
}

/// The lines of a ledger so far.
pub fn lines(path: &Path) -> Vec<String> {
    let mut text = String::new();
    if let Ok(mut file) = File::open(path) {
        file.read_to_string(&mut text).expect("a text");
    }
    text.lines().map(str::to_owned).collect()
}

/// The ids of the logged calls, in order.
pub fn calls(path: &Path) -> Vec<String> {
    lines(path).iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
}

/// The accepted events, in the publish order of their publisher.
#[derive(Debug, Default)]
pub struct Accepted {
    events: BTreeMap<String, (String, u64)>,
    order: Vec<String>,
}

impl Accepted {
    /// Adds an event with its number. Numbers must grow within a key.
    pub fn enter(&mut self, event: &Event, number: u64) {
        self.enter_line(&event.id().to_string(), event.key().unwrap_or("-"), number);
    }

    /// Adds an event that a member has published and logged.
    pub fn enter_line(&mut self, id: &str, key: &str, number: u64) {
        self.events.insert(id.to_owned(), (key.to_owned(), number));
        self.order.push(id.to_owned());
    }

    /// The number of accepted events.
    pub fn count(&self) -> usize {
        self.order.len()
    }

    /// Whether an event was accepted.
    pub fn has(&self, id: &str) -> bool {
        self.events.contains_key(id)
    }

    /// Whether every accepted event was handled.
    pub fn is_handled(&self, calls: &[String]) -> bool {
        let calls: BTreeSet<&String> = calls.iter().collect();
        self.order.iter().all(|id| calls.contains(id))
    }

    /// Compares the accepted events with the calls.
    pub fn account(&self, calls: &[String]) -> Account {
        let handled: BTreeSet<&String> = calls.iter().collect();
        let missing: Vec<bool> = self.order.iter().map(|id| !handled.contains(id)).collect();
        let first = missing.iter().position(|missing| !missing).unwrap_or(missing.len());
        let last = missing.iter().rposition(|missing| !missing).map_or(first, |at| at + 1);
        let lost = |range: &[bool]| range.iter().filter(|missing| **missing).count();
        let mut account = Account {
            accepted: self.count(),
            lost: [lost(&missing[..first]), lost(&missing[first..last]), lost(&missing[last..])],
            ..Account::default()
        };
        // Order is checked on the first call of each event: within a key, numbers must grow.
        let (mut seen, mut latest) = (BTreeSet::new(), BTreeMap::new());
        for id in calls {
            let Some((key, number)) = self.events.get(id) else {
                account.extra += 1;
                continue;
            };
            if !seen.insert(id) {
                account.repeated += 1;
                continue;
            }
            let before = latest.insert(key, *number);
            account.out_of_order += usize::from(key != "-" && before.is_some_and(|before| before > *number));
        }
        account
    }
}

/// The account of the accepted events.
#[derive(Debug, Default)]
pub struct Account {
    accepted: usize,
    /// Events never handled: before the first handled one, between, and after the last.
    lost: [usize; 3],
    /// Calls of events that were never accepted.
    pub extra: usize,
    /// Calls of an event beyond the first.
    pub repeated: usize,
    /// First calls that follow the first call of a later event of the same key.
    pub out_of_order: usize,
}

impl Account {
    /// The number of accepted events that were never handled.
    pub fn lost(&self) -> usize {
        self.lost.iter().sum()
    }

    /// Panics if an event was lost, made up or out of order.
    pub fn check(&self) {
        self.check_but_for_order();
        assert_eq!(self.out_of_order, 0, "{self}");
    }

    /// Panics if an event was lost or made up. For back ends without order across members.
    pub fn check_but_for_order(&self) {
        assert_eq!((self.lost, self.extra), ([0; 3], 0), "{self}");
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { accepted, lost: [first, middle, last], extra, repeated, out_of_order } = self;
        write!(
            f,
            "{accepted} accepted, lost {first}/{middle}/{last}, extra {extra}, handled twice {repeated}, out of order {out_of_order}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Accepted;
    use eventbroker::{Event, Source};

    /// Six events of two keys in turn, and their ids.
    fn accepted() -> (Accepted, Vec<String>) {
        let mut accepted = Accepted::default();
        let ids = (0..6).map(|number| {
            let event = Event::builder(Source::System, "a.b").key(format!("k{}", number % 2)).build();
            let event = event.expect("a valid event");
            accepted.enter(&event, number);
            event.id().to_string()
        });
        let ids = ids.collect();
        (accepted, ids)
    }

    #[test]
    fn losses_are_counted_at_the_beginning_middle_and_end() {
        let (accepted, ids) = accepted();
        let account = accepted.account(&[ids[1].clone(), ids[3].clone()]);
        assert_eq!((account.lost, account.repeated, account.extra), ([1, 1, 2], 0, 0));
        assert_eq!(accepted.account(&[]).lost, [6, 0, 0]);
        assert!(!accepted.is_handled(&ids[..5]) && accepted.is_handled(&ids));
    }

    #[test]
    fn repeated_extra_and_out_of_order_calls_are_counted() {
        let (accepted, ids) = accepted();
        let calls = [2, 0, 1, 1, 3, 5, 4].map(|at: usize| ids[at].clone());
        let account = accepted.account(&[&calls[..], &["stranger".to_owned()]].concat());
        assert_eq!((account.lost, account.repeated, account.extra, account.out_of_order), ([0; 3], 1, 1, 1));
    }

    #[test]
    #[should_panic(expected = "lost 0/1/0")]
    fn a_loss_fails_the_check() {
        let (accepted, ids) = accepted();
        accepted.account(&[&ids[..2], &ids[3..]].concat()).check();
    }
}
