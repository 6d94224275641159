//! What a provider remembers of late: where events are in the stream, and which messages it has acknowledged. Each is a ring that takes the
//! place of its oldest, so that a member that works all day holds as much as after its first minutes. It is looked through from its end: who
//! asks has asked the server, or is about to, which takes longer.

use std::collections::{HashMap, HashSet, VecDeque};

use eventbroker::EventId;
use parking_lot::Mutex;

use crate::provider::backend::Known;

/// How many places of events are remembered, and how many acknowledged messages of a subscription, those of all its consumers together.
const REMEMBERED: usize = 16_384;

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    places: Mutex<Ring<(EventId, u64)>>,
    /// By subscription.
    settled: Mutex<HashMap<String, Ring<Known>>>,
}

/// The last of what was entered.
#[derive(Debug)]
struct Ring<T>(VecDeque<T>);

impl<T> Default for Ring<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> Ring<T> {
    fn enter(&mut self, it: T) {
        if self.0.len() == REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(it);
    }
}

impl Recent {
    /// Remembers where an event is.
    pub(crate) fn remember(&self, id: &EventId, sequence: u64) {
        self.places.lock().enter((id.clone(), sequence));
    }

    pub(crate) fn remembered(&self, id: &EventId) -> Option<u64> {
        let places = self.places.lock();
        places.0.iter().rev().find(|(known, _)| known == id).map(|(_, sequence)| *sequence)
    }

    /// Messages of a subscription were acknowledged.
    pub(crate) fn settle<'a>(&self, ended: impl Iterator<Item = (&'a str, Known)>) {
        let mut settled = self.settled.lock();
        for (unit, known) in ended {
            match settled.get_mut(unit) {
                Some(of) => of.enter(known),
                None => settled.entry(unit.to_owned()).or_default().enter(known),
            }
        }
    }

    /// What was acknowledged of a consumer behind `floor`, up to `last`.
    pub(crate) fn settled(&self, unit: &str, consumer: &str, floor: u64, last: u64) -> HashSet<u64> {
        let settled = self.settled.lock();
        let of = settled.get(unit).into_iter().flat_map(|it| &it.0);
        let is_of_it = |known: &&Known| (floor + 1..=last).contains(&known.1) && *known.0 == *consumer;
        of.filter(is_of_it).map(|known| known.1).collect()
    }

    /// Whether a message was acknowledged.
    pub(crate) fn is_settled(&self, unit: &str, known: &Known) -> bool {
        let settled = self.settled.lock();
        settled.get(unit).is_some_and(|of| of.0.iter().rev().any(|it| it.1 == known.1 && it == known))
    }
}
