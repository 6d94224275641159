//! How far the handling of events has come. For most that is what the consumers tell: an event that a subscription has acknowledged needs no
//! note. Notes are made of what they do not tell, as far as the setting says: failures, retries, deliveries made again, and deliveries that the
//! server did not hand over.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, SystemTime};

use eventbroker::provider::BackendError;
use eventbroker::{Event, EventId, Pattern, Status};
use serde::{Deserialize, Serialize};

use crate::jetstream::consumer::{self as progress, Progress};
use crate::jetstream::kv::read;
use crate::jetstream::message as js;
use crate::provider::backend::Database;
use crate::subscriptions::{self as registry, Leg};
use crate::transport::runtime::Session;

/// The kinds of notes about events.
pub(crate) const STATUS: &str = "status";
/// Which events have failed, to count them.
pub(crate) const FAILED: &str = "failed";

/// What is noted of an event.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Note {
    /// By the deliveries that the server did not hand over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) local: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) retries: u32,
    /// The subscriptions in which it is a dead letter, with the errors.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) dead: BTreeMap<String, String>,
    /// Those to which it is delivered again.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub(crate) again: BTreeSet<String>,
    /// Those that have handled it, and when, in milliseconds since 1970; only if everything is written down.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) done: BTreeMap<String, i64>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Note {
    fn has_failed(&self) -> bool {
        !self.dead.is_empty() || self.local.as_deref() == Some(Status::Failed.as_str())
    }

    fn local(&self) -> Option<Status> {
        self.local.as_deref().and_then(|text| text.parse().ok())
    }
}

/// Changes what is noted of an event.
pub(crate) async fn note(
    session: &Session,
    database: &Database,
    id: &EventId,
    mut change: impl FnMut(&mut Note),
) -> Result<(), BackendError> {
    let state = &database.state;
    let turn = state
        .change(session, &state.of_event(STATUS, id), |note: &mut Note| {
            let before = note.has_failed();
            change(note);
            (before != note.has_failed()).then(|| note.has_failed())
        })
        .await?;
    let failed = state.of_event(FAILED, id);
    match turn {
        Some(true) => state.put(session, &failed, Vec::new()).await.map(drop),
        Some(false) => state.forget(session, vec![failed]).await.map(drop),
        None => Ok(()),
    }
}

/// The events of the stream's messages, with their statuses.
pub(crate) async fn with_statuses(
    session: &Session,
    database: &Database,
    found: Vec<(u64, Event)>,
) -> Result<Vec<Event>, BackendError> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let units = Units::of(session, database, &found).await?;
    let keys = found.iter().map(|(_, event)| database.state.of_event(STATUS, event.id())).collect();
    let notes = database.state.get_all(session, keys).await?;
    let told = |((sequence, event), note): ((u64, Event), Option<js::Entry>)| {
        let mut note: Note = note.as_ref().and_then(read).unwrap_or_default();
        // A subscription that is younger than the event does not change how that has ended.
        note.dead.retain(|unit, _| units.counts(unit, sequence));
        note.again.retain(|unit| units.counts(unit, sequence));
        note.done.retain(|unit, _| units.counts(unit, sequence));
        let status = units.status(sequence, &event, database.partition_of(&event), &note);
        let error = note.dead.into_values().next().or(note.error).filter(|_| status == Status::Failed);
        let ended = note.done.into_values().max().filter(|_| status == Status::Completed);
        let ended = ended.map(|ended| SystemTime::UNIX_EPOCH + Duration::from_millis(ended.unsigned_abs()));
        event.with_progress(status, note.retries, None, ended, error)
    };
    Ok(found.into_iter().zip(notes).map(told).collect())
}

/// A subscription: what its consumers are called, what is known of it, and its patterns with how often they had changed.
type Unit = (String, registry::Info, Vec<(u32, Pattern)>);

/// The subscriptions, and how far those have come that matter.
struct Units {
    known: Vec<Unit>,
    progress: HashMap<(String, u32, Option<u32>), Progress>,
}

impl Units {
    async fn of(session: &Session, database: &Database, found: &[(u64, Event)]) -> Result<Self, BackendError> {
        let known = registry::all(session, database).await?;
        let parsed = |(unit, info): (String, registry::Info)| {
            let all = info
                .earlier
                .iter()
                .map(|it| (it.changes, it.pattern.clone()))
                .chain([(info.changes, info.pattern.clone())]);
            let patterns = all.filter_map(|(changes, text)| Some((changes, Pattern::parse(&text).ok()?))).collect();
            (unit, info, patterns)
        };
        let mut units = Self { known: known.into_iter().map(parsed).collect(), progress: HashMap::new() };
        let mut legs: Vec<Leg> = Vec::new();
        let mut keys = Vec::new();
        for (unit, info, _) in &units.known {
            let mut needed = BTreeSet::new();
            for (sequence, event) in found {
                let changes = units.change_for(info, unit, *sequence, event);
                needed.extend(changes.map(|changes| (changes, database.partition_of(event))));
            }
            for leg in info.legs(database, unit).into_iter().filter(|leg| !leg.again) {
                if needed.contains(&(leg.changes, leg.partition)) {
                    keys.push((unit.clone(), leg.changes, leg.partition));
                    legs.push(leg);
                }
            }
        }
        for (key, progress) in keys.into_iter().zip(progress::progress(session, &legs).await?) {
            units.progress.insert(key, progress.unwrap_or_default());
        }
        Ok(units)
    }

    /// Whether what a subscription says of a message counts: not if it was made later. What one has said that is gone stays true.
    fn counts(&self, unit: &str, sequence: u64) -> bool {
        self.known.iter().find(|(of, ..)| of == unit).is_none_or(|(_, info, _)| sequence > info.after)
    }

    /// Which pattern of a subscription makes a delivery of an event that counts for its status.
    fn change_for(&self, info: &registry::Info, unit: &str, sequence: u64, event: &Event) -> Option<u32> {
        let counts = sequence > info.after && (info.instance.is_empty() || event.instance_id() == Some(&info.instance));
        let (_, changes) = info.pattern_at(sequence).filter(|_| counts)?;
        let (_, _, patterns) = self.known.iter().find(|(of, ..)| of == unit)?;
        let (_, pattern) = patterns.iter().find(|(of, _)| *of == changes)?;
        pattern.matches(event.event_type().as_str()).then_some(changes)
    }

    fn status(&self, sequence: u64, event: &Event, partition: Option<u32>, note: &Note) -> Status {
        let local = note.local();
        let (mut is_open, mut has_begun) = (
            matches!(local, Some(Status::Pending | Status::Processing)),
            local.is_some_and(|it| it != Status::Pending),
        );
        for (unit, info, _) in &self.known {
            if note.again.contains(unit) {
                (is_open, has_begun) = (true, true);
            }
            let Some(changes) = self.change_for(info, unit, sequence, event) else { continue };
            let Some(progress) = self.progress.get(&(unit.clone(), changes, partition)) else { continue };
            is_open |= progress.is_open(sequence);
            has_begun |= progress.has_begun(sequence);
        }
        has_begun |= !note.dead.is_empty();
        match (is_open, has_begun) {
            (true, false) => Status::Pending,
            (true, true) => Status::Processing,
            (false, _) if note.has_failed() => Status::Failed,
            (false, _) => Status::Completed,
        }
    }
}
