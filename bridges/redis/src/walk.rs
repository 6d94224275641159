//! Reading all streams at once, in the order of their entries' names, and of the streams where these are the same.

use eventbroker::Event;
use eventbroker::provider::BackendError;
use eventbroker::query::Order;
use redis::Value;

use crate::connection::{Database, Link};
use crate::entry::{entries, event_of, parts};

/// Entries of one step.
const STEP: usize = 500;

/// An event where it is: the number of its stream, and its entry.
pub(crate) type Found = (usize, String, Event);

/// How far it has come.
pub(crate) struct Walk {
    order: Order,
    /// What is still to be seen of each stream.
    pub(crate) ranges: Vec<Range>,
}

/// From an entry to another one, both included unless `(` stands before it.
#[derive(Clone)]
pub(crate) struct Range {
    pub(crate) from: String,
    pub(crate) to: String,
}

/// What a step has found.
pub(crate) struct Step {
    pub(crate) events: Vec<Found>,
    /// How many entries it has seen; not all of them need be events.
    pub(crate) entries: usize,
    /// There may be more.
    pub(crate) more: bool,
}

impl Walk {
    pub(crate) fn new(database: &Database, order: Order, from: &str, to: &str) -> Self {
        let range = Range { from: from.to_owned(), to: to.to_owned() };
        Self { order, ranges: vec![range; database.streams.len()] }
    }

    /// Only what comes later than an entry of the stream of that number.
    pub(crate) fn behind(mut self, number: usize, entry: &str) -> Self {
        for (range, of) in self.ranges.iter_mut().zip(1..) {
            let (end, comes_later) = match self.order {
                Order::OldestFirst => (&mut range.from, of > number),
                Order::NewestFirst => (&mut range.to, of < number),
            };
            *end = if comes_later { entry.to_owned() } else { format!("({entry}") };
        }
        self
    }

    pub(crate) fn step(&mut self, database: &Database, link: &mut Link) -> Result<Step, BackendError> {
        let (mut found, mut more) = (Vec::new(), false);
        for ((stream, Range { from, to }), number) in database.streams.iter().zip(&self.ranges).zip(1..) {
            let (verb, first, second) = match self.order {
                Order::OldestFirst => ("XRANGE", from, to),
                Order::NewestFirst => ("XREVRANGE", to, from),
            };
            let answer: Value =
                link.call(|it| redis::cmd(verb).arg(stream).arg(first).arg(second).arg("COUNT").arg(STEP).query(it))?;
            let entries = entries(answer)?;
            more |= entries.len() == STEP;
            found.extend(entries.into_iter().map(|(name, fields)| (parts(&name), number, name, fields)));
        }
        found.sort_by_key(|(place, number, ..)| (*place, *number));
        if self.order == Order::NewestFirst {
            found.reverse();
        }
        more |= found.len() > STEP;
        found.truncate(STEP);
        let entries = found.len();
        let mut events = Vec::with_capacity(entries);
        for (_, number, name, fields) in found {
            let range = &mut self.ranges[number - 1];
            *(if self.order == Order::OldestFirst { &mut range.from } else { &mut range.to }) = format!("({name}");
            events.extend(event_of(&fields).ok().map(|event| (number, name, event)));
        }
        Ok(Step { events, entries, more })
    }
}
