//! The partitions that this provider owns of each subscription: asked for again long before the hold ends. Another member takes over what one
//! owns when that has shown no sign of life for its lease, by the clock of who takes it; an owner hands nothing out for which it has not asked in
//! the last third of a lease, and a delivery that it has handed out begins no call after two thirds of one. So no clocks are compared. When there
//! are more members than before, each gives some partitions up: it takes no more of them, and lets them go as soon as it has nothing of them in its
//! hands.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::BackendError;

use crate::jetstream::kv::{read, write};
use crate::jetstream::message::Entry;
use crate::partitions::assignment::{Owners, Portion, Wish};
use crate::provider::backend::Database;
use crate::subscriptions::OWNERS;
use crate::transport::runtime::Session;

/// If it still has something of a partition in its hands after a lease, retries that wait long for example, it goes on with it for so many
/// leases before it tries again: what is behind should not stand still.
const GO_ON: u32 = 3;
/// How soon it looks whether others have come or gone.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The same while it gives something up.
const HURRY: Duration = Duration::from_millis(50);
/// How often a note is written that others change at the same time.
const TRIES: usize = 50;

/// See the module's page. Nobody waits for the server while he holds it.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    of: HashMap<String, Share>,
    looked: Option<Instant>,
    is_under_way: bool,
    /// The connection on which the others were seen: what was not seen while there was none says nothing.
    generation: u64,
}

/// The share of one subscription's partitions.
#[derive(Debug, Default)]
struct Share {
    portion: Portion,
    takes_part: bool,
    /// The number of the note that says so.
    noted: u64,
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

/// A subscription that is served, and whether this member takes part in it.
pub(crate) type Wanted = (String, bool);

/// A change of a note: what it is called, the number of the last one, what it is to say; and what this member gets by it.
struct Change {
    wanted: Wanted,
    key: String,
    last: u64,
    owners: Owners,
    portion: Portion,
    /// Else it was taken for dead, and has nothing left of what it had.
    was_known: bool,
}

impl Shares {
    /// When it should be looked at again.
    pub(crate) fn next(&self, lease: Duration) -> Instant {
        let hurries = self.of.values().any(|share| share.giving_up.is_some() || share.is_left());
        let every = if hurries { HURRY } else { LOOK_EVERY }.min(lease / 8);
        let since = if self.is_under_way { None } else { self.looked };
        since.map_or_else(|| Instant::now() + every, |looked| looked + every)
    }

    /// The subscriptions of which it has a share, or had one.
    pub(crate) fn units(&self) -> Vec<String> {
        self.of.keys().cloned().collect()
    }

    /// Whether it is time to ask for a share of the subscriptions that are served.
    fn is_due(&self, wanted: &[Wanted], lease: Duration) -> bool {
        let is_due = |(unit, takes_part): &Wanted| match self.of.get(unit) {
            Some(share) => share.takes_part != *takes_part || share.is_due(lease),
            None => *takes_part,
        };
        let is_late = self.looked.is_none() || Instant::now() >= self.next(lease);
        !self.is_under_way && (is_late || wanted.iter().any(is_due))
    }

    /// Whether the server has heard of this member in the last third of a lease.
    pub(crate) fn is_fresh(&self, unit: &str, lease: Duration) -> bool {
        self.of.get(unit).and_then(|share| share.renewed).is_some_and(|renewed| renewed.elapsed() < lease / 3)
    }

    /// What the server has not heard of in the last third of a lease, though it should.
    fn stale(&self, lease: Duration, takes_part: bool) -> Vec<Wanted> {
        let is_nothing = |share: &Share| !share.takes_part && share.portion.owned.is_empty();
        let stale = self.of.iter().filter(|(unit, share)| !is_nothing(share) && !self.is_fresh(unit, lease));
        stale.map(|(unit, share)| (unit.clone(), share.takes_part && takes_part)).collect()
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

    /// The others have to show again that they live: meanwhile nobody could.
    fn see_anew(&mut self) {
        self.of.values_mut().for_each(|share| share.seen.clear());
    }

    /// What is to be noted, as things stand.
    fn changes(&mut self, database: &Database, wanted: &[Wanted], found: Vec<Option<Entry>>) -> Vec<Change> {
        let lease = database.settings.lease_time;
        let mut changes = Vec::new();
        for ((unit, takes_part), found) in wanted.iter().zip(found) {
            let last = found.as_ref().map_or(0, |entry| entry.sequence);
            let before: Owners = found.as_ref().and_then(read).unwrap_or_default();
            let share = self.of.entry(unit.clone()).or_default();
            share.takes_part = *takes_part;
            let wish = Wish {
                me: &database.boot,
                lease,
                takes_part: *takes_part,
                in_hand: &database.partitions_in_hand(unit),
                dead: &share.dead(&before, &database.boot),
                partitions: database.partitions(),
            };
            let mut owners = before.clone();
            let portion = owners.share_out(&wish);
            let was_known = before.members.contains_key(&database.boot);
            let is_due = share.is_due(lease) && (*takes_part || was_known);
            // Others have come or gone, so that it should have more or less than it knows: it acts on what it has noted.
            let is_news = portion != share.portion;
            if is_due || is_news || !owners.is_same_but_for_signs(&before, &database.boot) {
                let (key, wanted) = (database.state.key(OWNERS, unit), (unit.clone(), *takes_part));
                changes.push(Change { wanted, key, last, owners, portion, was_known });
            }
        }
        changes
    }
}

/// Sees to it that the server is asked, if it is time to; nobody waits for that.
pub(crate) fn see_to(database: &Arc<Database>, mut wanted: Vec<Wanted>) {
    {
        let mut shares = database.shares.lock();
        // What it does not serve any more is let go as soon as nothing of it is in hand.
        shares
            .of
            .retain(|unit, share| !share.portion.owned.is_empty() || wanted.iter().any(|(served, _)| served == unit));
        let left = shares.units().into_iter().filter(|unit| !wanted.iter().any(|(served, _)| served == unit));
        wanted.extend(left.map(|unit| (unit, false)).collect::<Vec<_>>());
        if !shares.is_due(&wanted, database.settings.lease_time) {
            return;
        }
        shares.is_under_way = true;
    }
    let under_way = UnderWay(Arc::clone(database));
    database.runtime.post(move |session| {
        let session = match session {
            Ok(session) => session,
            Err(error) => {
                under_way.0.intake.fail(error);
                return None;
            }
        };
        Some(Box::pin(async move {
            if let Err(error) = ask(&session, &under_way.0, wanted).await {
                under_way.0.intake.fail(error);
            }
        }))
    });
}

/// A question that is under way. Whatever becomes of it, it is told.
struct UnderWay(Arc<Database>);

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.shares.lock().is_under_way = false;
        self.0.intake.ring();
    }
}

/// Asks again if the server has not heard of this member for a while, and waits for the answer.
pub(crate) fn renew(database: &Arc<Database>) -> Result<(), BackendError> {
    // Who takes nothing, because it stops, keeps only what it has in hand.
    let takes_part = !database.intake.is_silent();
    let stale = database.shares.lock().stale(database.settings.lease_time, takes_part);
    if stale.is_empty() {
        return Ok(());
    }
    let on_thread = Arc::clone(database);
    database.runtime.call(move |session| async move { ask(&session, &on_thread, stale).await })
}

/// Takes no part any more: lets everything go that it has nothing in its hands of.
pub(crate) fn leave(database: &Arc<Database>, units: &[String]) -> Result<(), BackendError> {
    let known = |unit: &&String| database.shares.lock().of.contains_key(*unit);
    let wanted: Vec<Wanted> = units.iter().filter(known).map(|unit| (unit.clone(), false)).collect();
    let on_thread = Arc::clone(database);
    let left = database.runtime.call(move |session| async move { ask(&session, &on_thread, wanted).await });
    // What is in hand is owned until its end is told.
    database.shares.lock().of.retain(|unit, share| !units.contains(unit) || !share.portion.owned.is_empty());
    left
}

async fn ask(session: &Session, database: &Database, mut wanted: Vec<Wanted>) -> Result<(), BackendError> {
    {
        let mut shares = database.shares.lock();
        if shares.generation != session.generation {
            shares.generation = session.generation;
            shares.see_anew();
        }
    }
    for _ in 0..TRIES {
        if wanted.is_empty() {
            break;
        }
        let overtaken = try_all(session, database, &wanted).await;
        if overtaken.is_err() {
            let mut shares = database.shares.lock();
            shares.see_anew();
            // What was asked may have been noted all the same.
            shares.looked = None;
        }
        wanted = overtaken?;
    }
    database.shares.lock().looked = Some(Instant::now());
    Ok(())
}

/// Asks for a share of each. Returns those for which others were faster.
async fn try_all(session: &Session, database: &Database, wanted: &[Wanted]) -> Result<Vec<Wanted>, BackendError> {
    let asked = Instant::now();
    let keys = wanted.iter().map(|(unit, _)| database.state.key(OWNERS, unit)).collect();
    let found = database.state.get_all(session, keys).await?;
    let changes = database.shares.lock().changes(database, wanted, found);
    let notes = changes.iter().map(|it| (it.key.clone(), it.last, write(&it.owners))).collect();
    let noted = database.state.replace_all(session, notes).await?;
    let mut overtaken = Vec::new();
    let mut shares = database.shares.lock();
    for (change, noted) in changes.into_iter().zip(noted) {
        match (shares.of.get_mut(&change.wanted.0), noted) {
            (Some(share), Some(noted)) if noted > share.noted => {
                share.noted = noted;
                share.take(change.portion, change.was_known, asked, database.settings.lease_time);
            }
            (_, Some(_)) => {}
            (_, None) => overtaken.push(change.wanted),
        }
    }
    Ok(overtaken)
}

impl Share {
    /// It takes nothing any more, and has something in hand.
    fn is_left(&self) -> bool {
        !self.takes_part && !self.portion.owned.is_empty()
    }

    /// Whether it is time to show that this member lives, so that there is time to hand something out after that.
    fn is_due(&self, lease: Duration) -> bool {
        self.renewed.is_none_or(|renewed| renewed.elapsed() >= lease / 6)
    }

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
