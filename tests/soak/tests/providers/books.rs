//! The books of one back end: the logs of its members, compared with each other and with the faults.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use eventbroker_conformance::processes::ledger::{Accepted, Account};

use super::member::Files;

/// A fault with its begin and end, in milliseconds since 1970.
pub(crate) struct Struck {
    pub(crate) what: &'static str,
    /// The process id of the member concerned; none if it concerns all.
    pub(crate) victim: Option<u32>,
    pub(crate) began: u64,
    pub(crate) ended: u64,
}

impl Struck {
    /// Whether a call was in flight at the fault, so that it may be repeated. A verdict is in flight for at most `long`
    /// ms.
    fn reaches(&self, (by, at): (u32, u64), long: u64) -> bool {
        self.victim.is_none_or(|victim| victim == by) && self.began <= at + long && at <= self.ended + long
    }
}

/// A log that other processes append to, and the position read so far.
struct Tail {
    path: PathBuf,
    at: u64,
}

impl Tail {
    /// Returns the new complete lines.
    fn read(&mut self) -> Vec<String> {
        let mut text = String::new();
        if let Ok(mut file) = File::open(&self.path) {
            file.seek(SeekFrom::Start(self.at)).expect("a place in the file");
            file.read_to_string(&mut text).expect("a text");
        }
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        self.at += whole as u64;
        text[..whole].lines().map(str::to_owned).collect()
    }
}

/// The accepted events, the calls and the faults of one back end.
pub(crate) struct Books {
    published: Tail,
    handled: Tail,
    /// The time after a call until its verdict is durable at the back end, in milliseconds.
    under_way: u64,
    /// Events whose publish has begun and is not accepted yet: key and number by id.
    attempted: HashMap<String, (String, u64)>,
    accepted: Accepted,
    /// Events accepted and not handled yet.
    pub(crate) open: BTreeSet<String>,
    /// The ids of the calls, in the order of their ends, and the process and time of each.
    calls: Vec<String>,
    made: Vec<(u32, u64)>,
    handled_ids: BTreeSet<String>,
    /// Publishes with the outcome unknown, which were repeated.
    pub(crate) unknown: u64,
    /// Members that have started, and members that have stopped publishing.
    pub(crate) started: BTreeSet<u32>,
    pub(crate) silent: BTreeSet<u32>,
    /// Unexpected lines, panics and timeouts.
    pub(crate) complaints: Vec<String>,
    pub(crate) faults: Vec<Struck>,
}

/// Calls beyond the first of an event.
#[derive(Default)]
pub(crate) struct Repeats {
    pub(crate) all: usize,
    /// Repeats whose previous call was not in flight at a fault.
    pub(crate) unexplained: usize,
    /// Calls in flight at the faults, which may be repeated.
    pub(crate) under_way: usize,
}

impl Books {
    pub(crate) fn new(files: &Files, under_way: Duration) -> Self {
        let tail = |path: &PathBuf| Tail { path: path.clone(), at: 0 };
        Self {
            published: tail(&files.published),
            handled: tail(&files.handled),
            under_way: under_way.as_millis() as u64,
            attempted: HashMap::new(),
            accepted: Accepted::default(),
            open: BTreeSet::new(),
            calls: Vec::new(),
            made: Vec::new(),
            handled_ids: BTreeSet::new(),
            unknown: 0,
            started: BTreeSet::new(),
            silent: BTreeSet::new(),
            complaints: Vec::new(),
            faults: Vec::new(),
        }
    }

    /// Reads the new lines of both logs.
    pub(crate) fn read(&mut self) {
        for line in self.published.read() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["A", id, key, number] => {
                    let number = number.parse().expect("a number");
                    self.attempted.insert(id.to_owned(), (key.to_owned(), number));
                }
                ["R", id] => {
                    let (key, number) = self.attempted.remove(id).expect("it was to be published");
                    self.accepted.enter_line(id, &key, number);
                    self.open.extend(Some(id.to_owned()).filter(|id| !self.handled_ids.contains(id)));
                }
                ["U", _] => self.unknown += 1,
                ["S", pid] => _ = self.started.insert(pid.parse().expect("a number")),
                ["E", pid] => _ = self.silent.insert(pid.parse().expect("a number")),
                _ => self.complaints.push(line),
            }
        }
        for line in self.handled.read() {
            let words: Vec<&str> = line.split(' ').collect();
            let [id, by, at] = words[..] else { panic!("a line of three words: {line}") };
            self.calls.push(id.to_owned());
            self.made.push((by.parse().expect("a number"), at.parse().expect("a time")));
            self.open.remove(id);
            self.handled_ids.insert(id.to_owned());
        }
    }

    /// The numbers of accepted events and of calls.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.accepted.count(), self.calls.len())
    }

    /// The account of the accepted events.
    pub(crate) fn account(&self) -> Account {
        self.accepted.account(&self.calls)
    }

    /// Events handled and never published.
    pub(crate) fn extra(&self) -> usize {
        self.handled_ids.iter().filter(|id| !self.attempted.contains_key(*id) && !self.accepted.has(id)).count()
    }

    /// Whether a call was in flight at a fault.
    fn is_under_way(&self, made: (u32, u64)) -> bool {
        self.faults.iter().any(|fault| fault.reaches(made, self.under_way))
    }

    /// Counts the calls beyond the first of each event, by whether the previous call was in flight at a fault.
    pub(crate) fn repeats(&self) -> Repeats {
        let reaches = |made: &(u32, u64)| self.is_under_way(*made);
        let (mut repeats, mut before) = (Repeats::default(), BTreeMap::new());
        for (id, made) in self.calls.iter().zip(&self.made) {
            if let Some(earlier) = before.insert(id, made) {
                repeats.all += 1;
                repeats.unexplained += usize::from(!reaches(earlier));
            }
        }
        repeats.under_way = self.made.iter().filter(|made| reaches(made)).count();
        repeats
    }

    /// Describes the calls of one event that was repeated without a known fault.
    pub(crate) fn unexplained(&self) -> Option<String> {
        let mut before = HashMap::new();
        for (id, &(by, at)) in self.calls.iter().zip(&self.made) {
            let earlier = before.insert(id, (by, at));
            let Some((first_by, first_at)) = earlier else { continue };
            if !self.is_under_way((first_by, first_at)) {
                let last = self.faults.iter().rev().find(|fault| fault.began <= at);
                let last = last.map_or("no fault".to_owned(), |it| {
                    format!("{} of {:?} from {} to {}", it.what, it.victim, it.began, it.ended)
                });
                return Some(format!("{id} by {first_by} at {first_at} and by {by} at {at}; before: {last}"));
            }
        }
        None
    }
}
