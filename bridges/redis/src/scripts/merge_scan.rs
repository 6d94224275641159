//! Reading all streams at once. Entries of several streams are in the order of their time; of the same millisecond, as the ids of their events are,
//! but never against the order of their stream.

use std::collections::VecDeque;

use eventbroker::Event;
use eventbroker::provider::BackendError;
use eventbroker::query::Order;
use redis::Value;

use crate::scripts::entry::{Fields, entries, event_of, parts};
use crate::transport::link::{Database, Link};

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
    pub(crate) fn behind(
        mut self,
        database: &Database,
        link: &mut Link,
        number: usize,
        entry: &str,
    ) -> Result<Self, BackendError> {
        let places = places_at(database, link, self.order, number, entry)?;
        for (range, place) in self.ranges.iter_mut().zip(places) {
            *(if self.order == Order::OldestFirst { &mut range.from } else { &mut range.to }) = format!("({place}");
        }
        Ok(self)
    }

    pub(crate) fn step(&mut self, database: &Database, link: &mut Link) -> Result<Step, BackendError> {
        let (mut found, mut more) = (Vec::new(), false);
        for (stream, Range { from, to }) in database.streams.iter().zip(&self.ranges) {
            let (verb, first, second) = match self.order {
                Order::OldestFirst => ("XRANGE", from, to),
                Order::NewestFirst => ("XREVRANGE", to, from),
            };
            let answer: Value =
                link.call(|it| redis::cmd(verb).arg(stream).arg(first).arg(second).arg("COUNT").arg(STEP).query(it))?;
            found.push(VecDeque::from(entries(answer)?));
            more |= found.last().is_some_and(|found| found.len() == STEP);
        }
        let merged = merge(found, self.order, STEP + 1);
        more |= merged.len() > STEP;
        let mut step = Step { events: Vec::new(), entries: 0, more };
        for (number, (name, fields)) in merged.into_iter().take(STEP) {
            let range = &mut self.ranges[number - 1];
            *(if self.order == Order::OldestFirst { &mut range.from } else { &mut range.to }) = format!("({name}");
            step.entries += 1;
            step.events.extend(event_of(&fields).ok().map(|event| (number, name, event)));
        }
        Ok(step)
    }
}

/// The last entry of each stream that comes no later, in an order, than an entry of the stream of that number; or what stands for it.
pub(crate) fn places_at(
    database: &Database,
    link: &mut Link,
    order: Order,
    number: usize,
    entry: &str,
) -> Result<Vec<String>, BackendError> {
    let (millis, _) = parts(entry);
    let (before, verb) = match order {
        Order::OldestFirst => (format!("{}-{}", millis.saturating_sub(1), u64::MAX), "XRANGE"),
        Order::NewestFirst => (format!("{}-0", millis + 1), "XREVRANGE"),
    };
    let mut found = Vec::new();
    for stream in &database.streams {
        let answer: Value = link.call(|it| redis::cmd(verb).arg(stream).arg(millis).arg(millis).query(it))?;
        found.push(VecDeque::from(entries(answer)?));
    }
    let mut places = vec![before; database.streams.len()];
    for (of, (name, _)) in merge(found, order, usize::MAX) {
        let is_it = of == number && name == entry;
        places[of - 1] = name;
        if is_it {
            break;
        }
    }
    Ok(places)
}

/// An entry with its fields.
type Named = (String, Fields);

/// Puts the entries of several streams into one order; the first so many of them, with the numbers of their streams.
pub(crate) fn merge(mut streams: Vec<VecDeque<Named>>, order: Order, most: usize) -> Vec<(usize, Named)> {
    let mut merged = Vec::new();
    while merged.len() < most {
        let heads = streams.iter().enumerate().filter_map(|(index, stream)| Some((place_of(stream.front()?), index)));
        let next = match order {
            Order::OldestFirst => heads.min(),
            Order::NewestFirst => heads.max(),
        };
        let Some((_, index)) = next else { break };
        merged.extend(streams[index].pop_front().map(|entry| (index + 1, entry)));
    }
    merged
}

/// What an entry is ordered by.
fn place_of((name, fields): &Named) -> (u64, &[u8]) {
    let id = fields.iter().find(|(field, _)| field == "id").map(|(_, id)| &**id);
    (parts(name).0, id.unwrap_or_default())
}
