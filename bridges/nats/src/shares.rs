//! The partitions that this provider owns of each subscription: asked for again long before the hold ends. Another member takes over what one
//! owns when that has shown no sign of life for its lease, by the clock of who takes it; an owner hands nothing out for which it has not asked in
//! the last third of a lease, and a delivery that it has handed out begins no call after two thirds of one. So no clocks are compared. When there
//! are more members than before, each gives some partitions up: it takes no more of them, and lets them go as soon as it has nothing of them in its
//! hands.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::BackendError;

use crate::connection::Database;
use crate::owners::{Owners, Portion, Wish};
use crate::registry::OWNERS;
use crate::state::{read, write};

/// If it still has something of a partition in its hands after a lease, retries that wait long for example, it goes on with it for so many
/// leases before it tries again: what is behind should not stand still.
const GO_ON: u32 = 3;
/// How soon it looks whether others have come or gone.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same while it gives something up.
const HURRY: Duration = Duration::from_millis(50);
/// How often a note is written that others change at the same time.
const TRIES: usize = 50;

/// See the module's page.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    of: HashMap<String, Share>,
    looked: Option<Instant>,
    /// The connection on which the others were seen: what was not seen while there was none says nothing.
    generation: u64,
}

/// The share of one subscription's partitions.
#[derive(Debug, Default)]
struct Share {
    portion: Portion,
    takes_part: bool,
    /// Just before the server was last told that this member lives.
    renewed: Option<Instant>,
    /// Since when others have given no new sign of life.
    seen: HashMap<String, (u64, Instant)>,
    /// Since when there is something to give up.
    giving_up: Option<Instant>,
    /// What is in hand of that is in the way.
    wants_back: bool,
    /// What it did not own before.
    gained: BTreeSet<u32>,
}

impl Shares {
    /// When it should be looked at again.
    pub(crate) fn next(&self, lease: Duration) -> Instant {
        let hurries = self.of.values().any(|share| share.giving_up.is_some());
        let every = if hurries { HURRY.min(lease / 8) } else { LOOK_EVERY.min(lease / 8) };
        self.looked.map_or_else(Instant::now, |looked| looked + every)
    }

    /// Asks for a share of the subscriptions that are served, if it is time to: of each whether this member takes part.
    pub(crate) fn see_to(&mut self, database: &Arc<Database>, wanted: &[(String, bool)]) -> Result<(), BackendError> {
        let is_new = |(unit, takes_part): &(String, bool)| {
            self.of.get(unit).map_or(*takes_part, |share| share.takes_part != *takes_part)
        };
        if wanted.iter().any(is_new) || Instant::now() >= self.next(database.settings.lease_time) {
            self.ask(database, wanted)?;
        }
        Ok(())
    }

    /// Whether the server has heard of this member in the last third of a lease.
    pub(crate) fn is_fresh(&self, unit: &str, lease: Duration) -> bool {
        self.of.get(unit).and_then(|share| share.renewed).is_some_and(|renewed| renewed.elapsed() < lease / 3)
    }

    /// Asks again if the server has not heard of it for a while, because nobody takes anything at the moment.
    pub(crate) fn renew(&mut self, database: &Arc<Database>) -> Result<(), BackendError> {
        let lease = database.settings.lease_time;
        let is_nothing = |share: &Share| !share.takes_part && share.portion.owned.is_empty();
        if self.of.iter().all(|(unit, share)| is_nothing(share) || self.is_fresh(unit, lease)) {
            return Ok(());
        }
        let is_silent = database.intake.is_silent();
        let wanted: Vec<(String, bool)> =
            self.of.iter().map(|(unit, share)| (unit.clone(), share.takes_part && !is_silent)).collect();
        self.ask(database, &wanted)
    }

    pub(crate) fn owns(&self, unit: &str, partition: u32) -> bool {
        self.of.get(unit).is_some_and(|share| share.portion.owned.contains(&partition))
    }

    /// The partitions that it may take from.
    pub(crate) fn claimable(&self, unit: &str, lease: Duration) -> BTreeSet<u32> {
        let Some(share) = self.of.get(unit) else { return BTreeSet::new() };
        let Portion { owned, surplus } = &share.portion;
        if share.waits(lease) { owned - surplus } else { owned.clone() }
    }

    /// What it owns since this was last asked: what others have had of it goes first.
    pub(crate) fn gained(&mut self) -> Vec<(String, u32)> {
        let mut gained = Vec::new();
        for (unit, share) in &mut self.of {
            gained.extend(std::mem::take(&mut share.gained).into_iter().map(|number| (unit.clone(), number)));
        }
        gained
    }

    /// Those of which what is in hand and has not begun should be given back; told once each time that something should be given up.
    pub(crate) fn wanted_back(&mut self) -> Vec<String> {
        let wants = |(unit, share): (&String, &mut Share)| std::mem::take(&mut share.wants_back).then(|| unit.clone());
        self.of.iter_mut().filter_map(wants).collect()
    }

    /// Takes no part any more: lets everything go that it has nothing in its hands of.
    pub(crate) fn leave(&mut self, database: &Arc<Database>, units: &[String]) -> Result<(), BackendError> {
        let known = units.iter().filter(|unit| self.of.contains_key(*unit));
        let wanted: Vec<(String, bool)> = known.map(|unit| (unit.clone(), false)).collect();
        let left = self.ask(database, &wanted);
        self.of.retain(|unit, _| !units.contains(unit));
        left
    }

    fn ask(&mut self, database: &Arc<Database>, wanted: &[(String, bool)]) -> Result<(), BackendError> {
        let generation = database.runtime.generation();
        if self.generation != generation {
            self.generation = generation;
            self.of.values_mut().for_each(|share| share.seen.clear());
        }
        let mut left: Vec<(String, bool)> = wanted.to_vec();
        for _ in 0..TRIES {
            if left.is_empty() {
                break;
            }
            match self.try_all(database, &left) {
                Ok(overtaken) => left = overtaken,
                Err(error) => {
                    // Meanwhile nobody could show that he lives.
                    self.of.values_mut().for_each(|share| share.seen.clear());
                    // What was asked may have been noted all the same.
                    self.looked = None;
                    return Err(error);
                }
            }
        }
        self.looked = Some(Instant::now());
        Ok(())
    }

    /// Asks for a share of each. Returns those for which others were faster.
    fn try_all(
        &mut self,
        database: &Arc<Database>,
        wanted: &[(String, bool)],
    ) -> Result<Vec<(String, bool)>, BackendError> {
        let asked = Instant::now();
        let keys: Vec<String> = wanted.iter().map(|(unit, _)| database.state.key(OWNERS, unit)).collect();
        let on_thread = Arc::clone(database);
        let told = keys.clone();
        let found =
            database.runtime.call(move |session| async move { on_thread.state.get_all(&session, told).await })?;
        let (mut notes, mut asking) = (Vec::new(), Vec::new());
        for (((unit, takes_part), key), found) in wanted.iter().zip(keys).zip(found) {
            let last = found.as_ref().map_or(0, |entry| entry.sequence);
            let before: Owners = found.as_ref().and_then(read).unwrap_or_default();
            let share = self.of.entry(unit.clone()).or_default();
            share.takes_part = *takes_part;
            let dead = share.dead(&before, &database.boot);
            let in_hand = database.partitions_in_hand(unit);
            let wish = Wish {
                me: &database.boot,
                lease: database.settings.lease_time,
                takes_part: *takes_part,
                in_hand: &in_hand,
                dead: &dead,
                partitions: database.partitions(),
            };
            let mut after = before.clone();
            let portion = after.share_out(&wish);
            let is_due = share.renewed.is_none_or(|renewed| renewed.elapsed() >= database.settings.lease_time / 6);
            // Whoever was taken for dead has nothing left of what it had.
            let was_known = before.members.contains_key(&database.boot);
            if !after.is_same_but_for_signs(&before, &database.boot) || (is_due && (*takes_part || was_known)) {
                notes.push((key, last, write(&after)));
                asking.push((unit.clone(), *takes_part, portion, was_known));
            }
        }
        if notes.is_empty() {
            return Ok(Vec::new());
        }
        let on_thread = Arc::clone(database);
        let noted =
            database.runtime.call(move |session| async move { on_thread.state.replace_all(&session, notes).await })?;
        let mut overtaken = Vec::new();
        for ((unit, takes_part, portion, was_known), noted) in asking.into_iter().zip(noted) {
            match self.of.get_mut(&unit) {
                Some(share) if noted.is_some() => share.take(portion, was_known, asked, database.settings.lease_time),
                _ => overtaken.push((unit, takes_part)),
            }
        }
        Ok(overtaken)
    }
}

impl Share {
    /// Those others who have shown no sign of life for their leases.
    fn dead(&mut self, owners: &Owners, me: &str) -> BTreeSet<String> {
        // After the answer has come, so not before they have shown it.
        let now = Instant::now();
        self.seen.retain(|member, _| owners.members.contains_key(member));
        let mut dead = BTreeSet::new();
        for (name, member) in owners.members.iter().filter(|(name, _)| *name != me) {
            let seen = self.seen.entry(name.clone()).or_insert((member.signs, now));
            if seen.0 != member.signs {
                *seen = (member.signs, now);
            }
            if now - seen.1 >= Duration::from_millis(member.lease) {
                dead.insert(name.clone());
            }
        }
        dead
    }

    /// The server has noted what this member owns.
    fn take(&mut self, portion: Portion, was_known: bool, asked: Instant, lease: Duration) {
        let had = if was_known { std::mem::take(&mut self.portion.owned) } else { BTreeSet::new() };
        self.gained.extend(&portion.owned - &had);
        let since = (!portion.surplus.is_empty()).then(|| self.giving_up.unwrap_or(asked));
        let waited = self.giving_up.is_some() && self.waits(lease);
        (self.portion, self.renewed, self.giving_up) = (portion, Some(asked), since);
        self.wants_back |= self.waits(lease) && !waited;
    }

    /// Whether it takes nothing of what it should give up, at the moment.
    fn waits(&self, lease: Duration) -> bool {
        let round = (lease * (1 + GO_ON)).as_nanos().max(1);
        self.giving_up.is_some_and(|since| since.elapsed().as_nanos() % round < lease.as_nanos())
    }
}
