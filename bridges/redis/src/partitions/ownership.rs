//! The streams that this provider owns of a subscription, where each has one owner: asked for again long before the hold ends. When there are
//! more members than before, each gives some up: it takes no more of them, and lets them go as soon as it has nothing of them in its hands.

use std::collections::BTreeSet;
use std::time::Instant;

use eventbroker::provider::BackendError;

use crate::scripts;
use crate::scripts::entry::{list, number};
use crate::transport::link::{Database, Link, millis};

/// If it still has something of a stream in its hands after a lease, retries that wait long for example, it goes on with it for so many
/// leases before it tries again: what is behind should not stand still.
const GO_ON: u32 = 3;

#[derive(Debug)]
pub(crate) struct Share {
    unit: String,
    /// What it owns, and what of that it may take from.
    owned: BTreeSet<usize>,
    claimable: Vec<usize>,
    has_grown: bool,
    asked: Option<Instant>,
    giving_up: Option<Instant>,
    /// What it has in its hands of what it should give up is in the way.
    wants_back: bool,
}

impl Share {
    pub(crate) fn new(unit: &str) -> Self {
        Self {
            unit: unit.to_owned(),
            owned: BTreeSet::new(),
            claimable: Vec::new(),
            has_grown: false,
            asked: None,
            giving_up: None,
            wants_back: false,
        }
    }

    /// Something has happened to the other members.
    pub(crate) fn look_again(&mut self) {
        self.asked = None;
    }

    /// The numbers of the streams that it may take from. While `others_return`, because the server was away, it takes over nothing of theirs.
    pub(crate) fn claimable(
        &mut self,
        database: &Database,
        link: &mut Link,
        others_return: bool,
    ) -> Result<Vec<usize>, BackendError> {
        let is_due = self.asked.is_none_or(|asked| asked.elapsed() >= database.lease_time / 4);
        if is_due || self.giving_up.is_some() {
            let asked = Instant::now();
            let told = ask(database, link, &self.unit, if others_return { "2" } else { "1" })?;
            let owned: BTreeSet<usize> = told.iter().map(|it| it.unsigned_abs() as usize).collect();
            self.has_grown |= !owned.is_subset(&self.owned);
            let since = if told.iter().any(|it| *it < 0) { Some(self.giving_up.unwrap_or(asked)) } else { None };
            let round = database.lease_time * (1 + GO_ON);
            let waits =
                since.is_some_and(|it| it.elapsed().as_nanos() % round.as_nanos() < database.lease_time.as_nanos());
            self.wants_back |= waits && self.giving_up.is_none_or(|it| it != since.unwrap_or(asked));
            let may_take = |it: &&i64| **it > 0 || !waits;
            self.claimable = told.iter().filter(may_take).map(|it| it.unsigned_abs() as usize).collect();
            (self.owned, self.giving_up, self.asked) = (owned, since, Some(asked));
        }
        Ok(self.claimable.clone())
    }

    /// Whether it has got a stream since this was last asked: what others have had of it goes first.
    pub(crate) fn has_grown(&mut self) -> bool {
        std::mem::take(&mut self.has_grown)
    }

    /// Whether what is in hand and has not begun should be given back; told once each time that it should give something up.
    pub(crate) fn wants_back(&mut self) -> bool {
        std::mem::take(&mut self.wants_back)
    }

    /// Takes no part any more, at least for now.
    pub(crate) fn leave(&mut self, database: &Database, link: &mut Link) -> Result<(), BackendError> {
        if self.asked.take().is_some() {
            leave(database, link, &self.unit)?;
            self.owned.clear();
        }
        Ok(())
    }
}

/// Gives up all that it has nothing in its hands of.
pub(crate) fn leave(database: &Database, link: &mut Link, unit: &str) -> Result<(), BackendError> {
    ask(database, link, unit, "0").map(drop)
}

fn ask(database: &Database, link: &mut Link, unit: &str, takes_part: &str) -> Result<Vec<i64>, BackendError> {
    let in_hand: BTreeSet<usize> = database.in_hand(unit).into_iter().map(|(number, _)| number).collect();
    let idle = (1..=database.streams.len()).filter(|number| !in_hand.contains(number));
    let (lease, streams) = (millis(database.lease_time), database.streams.len().to_string());
    let idle: Vec<String> = idle.map(|number| number.to_string()).collect();
    let mut arguments = vec![unit, &database.boot, &lease, &streams, takes_part];
    arguments.extend(idle.iter().map(String::as_str));
    let arguments: Vec<&[u8]> = arguments.into_iter().map(str::as_bytes).collect();
    list(link.run(&scripts::HOLD_PARTITIONS, &arguments)?)?.into_iter().map(number).collect()
}
