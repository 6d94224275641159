//! Reading all streams as one. Entries of several streams are in the order of their time; within a millisecond in the order of their
//! events' ids, but never against the order of their stream.

use std::collections::VecDeque;
use std::sync::Arc;

use eventbroker::Event;
use eventbroker::provider::BackendError;
use eventbroker::query::Order;

use super::client::Client;
use super::entry::{Entry, event_of, id_parts};
use super::layout::Layout;

/// Entries of one step.
const STEP: usize = 500;

/// An event with the number of its stream and its entry.
pub(crate) type Located = (usize, String, Event);

/// A scan over all streams, and its progress.
pub(crate) struct MergeScan {
    order: Order,
    /// The part of each stream that is not read.
    pub(crate) ranges: Vec<Range>,
}

/// From an entry to another one, both included unless `(` stands before it.
#[derive(Clone)]
pub(crate) struct Range {
    pub(crate) from: String,
    pub(crate) to: String,
}

impl Range {
    /// The end at which a scan begins.
    fn start(&mut self, order: Order) -> &mut String {
        if order == Order::OldestFirst { &mut self.from } else { &mut self.to }
    }
}

/// The result of a step.
pub(crate) struct Step {
    pub(crate) events: Vec<Located>,
    /// The number of entries that the step has read, events or not.
    pub(crate) entries: usize,
    /// Whether there may be more.
    pub(crate) more: bool,
}

impl MergeScan {
    pub(crate) fn new(layout: &Layout, order: Order, from: &str, to: &str) -> Self {
        let range = Range { from: from.to_owned(), to: to.to_owned() };
        Self { order, ranges: vec![range; layout.streams.len()] }
    }

    /// Skips everything up to an entry of the stream of that number, in the order of the scan.
    pub(crate) fn skip_to(mut self, client: &mut Client, number: usize, entry: &str) -> Result<Self, BackendError> {
        let places = entries_at(client, self.order, number, entry)?;
        for (range, place) in self.ranges.iter_mut().zip(places) {
            *range.start(self.order) = format!("({place}");
        }
        Ok(self)
    }

    pub(crate) fn step(&mut self, client: &mut Client) -> Result<Step, BackendError> {
        let (layout, mut found, mut more) = (Arc::clone(&client.layout), Vec::new(), false);
        for (stream, Range { from, to }) in layout.streams.iter().zip(&self.ranges) {
            let (verb, first, second) = match self.order {
                Order::OldestFirst => ("XRANGE", from, to),
                Order::NewestFirst => ("XREVRANGE", to, from),
            };
            let page: Vec<Entry> =
                client.query(redis::cmd(verb).arg(stream).arg(first).arg(second).arg("COUNT").arg(STEP))?;
            more |= page.len() == STEP;
            found.push(page);
        }
        let merged = merge(found, self.order, STEP + 1);
        more |= merged.len() > STEP;
        let mut step = Step { events: Vec::new(), entries: 0, more };
        for (number, (entry, fields)) in merged.into_iter().take(STEP) {
            *self.ranges[number - 1].start(self.order) = format!("({entry}");
            step.entries += 1;
            step.events.extend(event_of(&fields).ok().map(|event| (number, entry, event)));
        }
        Ok(step)
    }
}

/// The last entry of each stream that, in an order, comes no later than an entry of the stream of that number; or an id that stands for
/// it.
pub(crate) fn entries_at(
    client: &mut Client,
    order: Order,
    number: usize,
    entry: &str,
) -> Result<Vec<String>, BackendError> {
    let (millis, _) = id_parts(entry);
    let (before, verb) = match order {
        Order::OldestFirst => (format!("{}-{}", millis.saturating_sub(1), u64::MAX), "XRANGE"),
        Order::NewestFirst => (format!("{}-0", millis + 1), "XREVRANGE"),
    };
    let (layout, mut found) = (Arc::clone(&client.layout), Vec::new());
    for stream in &layout.streams {
        found.push(client.query(redis::cmd(verb).arg(stream).arg(millis).arg(millis))?);
    }
    let mut places = vec![before; layout.streams.len()];
    for (of, (id, _)) in merge(found, order, usize::MAX) {
        let is_last = of == number && id == entry;
        places[of - 1] = id;
        if is_last {
            break;
        }
    }
    Ok(places)
}

/// Merges entries of several streams: the first `most` of them, with the numbers of their streams.
pub(crate) fn merge(streams: Vec<Vec<Entry>>, order: Order, most: usize) -> Vec<(usize, Entry)> {
    let (mut streams, mut merged): (Vec<VecDeque<Entry>>, _) =
        (streams.into_iter().map(Into::into).collect(), Vec::new());
    while merged.len() < most {
        let heads = streams.iter().enumerate().filter_map(|(index, stream)| Some((sort_key(stream.front()?), index)));
        let next = match order {
            Order::OldestFirst => heads.min(),
            Order::NewestFirst => heads.max(),
        };
        let Some((_, index)) = next else { break };
        merged.extend(streams[index].pop_front().map(|entry| (index + 1, entry)));
    }
    merged
}

/// The time of an entry, and the id of its event.
fn sort_key((entry, fields): &Entry) -> (u64, &[u8]) {
    let id = fields.iter().find(|(field, _)| field == "id").map(|(_, id)| &**id);
    (id_parts(entry).0, id.unwrap_or_default())
}
