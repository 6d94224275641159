//! The way in: hands out what has come, asks for more, and sees to what nobody else does: subscriptions that nobody serves, notes that nobody
//! needs, messages that everybody has handled.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::{BackendError, Ingest, Lease, LeaseToken, Room, Waker};
use serde_json::json;

use crate::connection::{Database, Held};
use crate::entry::{from_json, is_of_the_original, is_ours};
use crate::js::{self, Ack, DONE, Which};
use crate::leases;
use crate::members::{BOOT, FORGET_AFTER};
use crate::registry::{self, DEAD, LEASE, Leg, SUBSCRIPTION, USED};
use crate::runtime::Session;
use crate::source::{Arrived, is_fresh};
use crate::state::{read, write};
use crate::status::{FAILED, STATUS};
use crate::store::{self, AT};
use crate::{reader, stream, unconfirmed};

/// Time between two looks for what is old.
const CLEAN_UP_EVERY: Duration = Duration::from_secs(10);
/// Notes of a kind that one look removes.
const REMOVED: usize = 500;
/// How soon it looks again at what has no room.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// What says how often a delivery was requeued.
pub(crate) const REQUEUES: &str = "Requeues";

#[derive(Debug)]
pub(crate) struct NatsIngest {
    database: Arc<Database>,
    next_clean_up: Instant,
    /// The last message of each consumer that was handed out.
    highest: HashMap<Arc<str>, u64>,
}

impl NatsIngest {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self { database: Arc::clone(database), next_clean_up: Instant::now(), highest: HashMap::new() }
    }

    fn look(&mut self, room: &[Room], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        let database = Arc::clone(&self.database);
        let deadline = Instant::now() + wait;
        loop {
            if let Some(problem) = database.intake.problem() {
                return Err(problem);
            }
            unconfirmed::mend(&database)?;
            if database.intake.is_in_doubt() {
                let on_thread = Arc::clone(&database);
                database
                    .runtime
                    .call_long(move |session| async move { registry::revive(&session, &on_thread).await })?;
            }
            if Instant::now() >= self.next_clean_up || database.is_crowded.swap(false, Ordering::SeqCst) {
                self.next_clean_up = Instant::now() + CLEAN_UP_EVERY.min(database.settings.idle_expiry);
                let on_thread = Arc::clone(&database);
                database.runtime.call_long(move |session| async move { clean_up(&session, &on_thread).await })?;
            }
            let leases = self.claim(room);
            let now = Instant::now();
            if !leases.is_empty() || now >= deadline {
                return Ok(leases);
            }
            let is_short = database.served.lock().len() > room.len() || database.intake.is_on_hold();
            let look = if is_short { now + LOOK_EVERY } else { deadline };
            if database.intake.wait(deadline.min(self.next_clean_up).min(look)) {
                return Ok(Vec::new());
            }
        }
    }

    /// Hands out what has come, and asks for more.
    fn claim(&mut self, room: &[Room]) -> Vec<Lease> {
        let database = Arc::clone(&self.database);
        database.intake.see(database.runtime.generation());
        let served: HashMap<Arc<str>, (String, Vec<Arc<Leg>>)> = {
            let served = database.served.lock();
            served.iter().map(|(name, it)| (Arc::clone(name), (it.unit.clone(), it.legs.clone()))).collect()
        };
        let units: HashSet<&str> = served.values().map(|(unit, _)| unit.as_str()).collect();
        let (mut leases, mut pulls, mut acks, mut foreign) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut roomy = HashSet::new();
        let handing_out = database.handing_out.lock();
        for room in room {
            let Some((unit, legs)) = served.get(&room.subscription) else { continue };
            roomy.insert(unit.as_str());
            for (leg, arrived) in database.intake.take(unit, legs, room.deliveries, &database, &mut pulls) {
                let ack = Ack { consumer: leg.ack_name(), to: arrived.reply.clone(), verb: DONE };
                if database.floors.is_below(&leg, arrived.entry.sequence) {
                    acks.push(ack);
                    continue;
                }
                let (sequence, stored_at) = (arrived.entry.sequence, arrived.entry.stored_at);
                let highest = self.highest.entry(leg.ack_name()).or_default();
                let may_be_known = arrived.delivered > 1 || sequence <= *highest;
                *highest = sequence.max(*highest);
                if may_be_known {
                    // It may have come again before the server has heard of it, or the server has forgotten what it heard.
                    if database.is_in_hand(&leg, sequence, stored_at) {
                        continue;
                    }
                    if database.is_settled(&leg.ack_name(), sequence, stored_at) {
                        acks.push(ack);
                        continue;
                    }
                }
                let fresh = arrived.fresh;
                match lease(&database, &room.subscription, &leg, arrived, &mut foreign) {
                    Some(lease) => leases.push((fresh, lease)),
                    None => acks.push(ack),
                }
            }
        }
        drop(handing_out);
        let unwanted = database.intake.unwanted(|unit| units.contains(unit), |unit| roomy.contains(unit));
        if !pulls.is_empty() {
            reader::ask(&database, pulls);
        }
        if !(acks.is_empty() && unwanted.is_empty() && foreign.is_empty()) {
            let on_thread = Arc::clone(&database);
            database.runtime.post(move |session| {
                let session = session.ok()?;
                Some(Box::pin(async move {
                    let done = async {
                        js::ack_all(&session, acks).await?;
                        leases::give_back(&session, &on_thread, unwanted).await?;
                        on_thread.state.put_all(&session, foreign).await
                    };
                    if let Err(error) = done.await {
                        // All of it comes again when its lease has ended.
                        tracing::debug!(%error, "messages were not given back");
                    }
                }))
            });
        }
        // This may have been the moment in which the process slept.
        let is_old = |(fresh, _): &(Instant, Lease)| !is_fresh(*fresh, database.settings.lease_time);
        if leases.first().is_some_and(is_old) {
            let mut held = database.leases.lock();
            leases.iter().for_each(|(_, lease)| _ = held.remove(&lease.token.0));
            return Vec::new();
        }
        leases.into_iter().map(|(_, lease)| lease).collect()
    }
}

/// A message as a lease; nothing if it is not for this subscription, or no event.
fn lease(
    database: &Database,
    name: &Arc<str>,
    leg: &Arc<Leg>,
    arrived: Arrived,
    foreign: &mut Vec<(String, Vec<u8>)>,
) -> Option<Lease> {
    let entry = &arrived.entry;
    if !leg.again && (entry.sequence > leg.until || is_of_the_original(database.prefix(), entry.subject.as_str())) {
        return None;
    }
    let event = match from_json(&entry.payload) {
        Ok(event) => event,
        Err(error) => {
            // Somebody has written what is no event: it may not stand in the way of the others.
            tracing::warn!(subject = entry.subject.as_str(), entry.sequence, %error, "a message of the stream is no event");
            return None;
        }
    };
    if leg.pattern.as_ref().is_some_and(|pattern| !pattern.matches(event.event_type().as_str())) {
        return None;
    }
    if !leg.again && !is_ours(&entry.headers) {
        foreign.push((database.state.of_event(AT, event.id()), write(&entry.sequence)));
    }
    let token = database.next_token.fetch_add(1, Ordering::Relaxed);
    let requeues = entry.header(REQUEUES).and_then(|text| text.parse().ok()).unwrap_or(0);
    let held = Held {
        leg: Arc::clone(leg),
        name: Arc::clone(name),
        requeues,
        reply: arrived.reply,
        sequence: entry.sequence,
        stored_at: entry.stored_at,
        delivered: arrived.delivered,
        note: arrived.known.note,
        noted: arrived.known.noted,
        event: event.clone(),
    };
    database.leases.lock().insert(token, held);
    let lease = Lease::new(LeaseToken(token), Arc::clone(name), event);
    Some(if arrived.known.suspect { lease.suspected(arrived.known.note.crashes) } else { lease })
}

/// Removes what nobody asks for any more.
async fn clean_up(session: &Session, database: &Database) -> Result<(), BackendError> {
    let state = &database.state;
    let now = database.look_at_clock(session).await?;
    let age = |at: SystemTime| now.duration_since(at).unwrap_or_default();
    let known = registry::all(session, database).await?;
    let used = state.get_all(session, known.iter().map(|(unit, _)| state.key(USED, unit)).collect()).await?;
    let owner = |(_, info): &(String, registry::Info)| {
        // Of those that belong to nobody, this provider is as good as any.
        let owner = if info.owner.is_empty() { &database.boot } else { &info.owner };
        state.key(BOOT, owner)
    };
    let boots = state.get_all(session, known.iter().map(owner).collect()).await?;
    let is_dead = database.settings.lease_time.saturating_mul(FORGET_AFTER);
    for (((unit, info), used), boot) in known.iter().zip(used).zip(boots) {
        let is_gone = !info.owner.is_empty() && boot.is_none_or(|boot| age(boot.stored_at) > is_dead);
        let is_unused = used.is_some_and(|used| age(used.stored_at) > database.settings.idle_expiry);
        if is_unused {
            let idle_expiry = database.settings.idle_expiry;
            tracing::warn!(unit, ?idle_expiry, "nobody used a subscription: it is removed");
            state.count(session, "subscriptions", 1).await?;
        }
        if is_gone || is_unused {
            registry::forget(session, database, unit).await?;
        } else if database.served.lock().values().any(|served| served.unit == *unit) {
            registry::retire(session, database, unit, info).await?;
            // Another member may have changed its pattern.
            if let Some(info) = state.get(session, &state.key(SUBSCRIPTION, unit)).await?.as_ref().and_then(read) {
                database.learn(unit, info);
            }
        }
    }
    let kept = database.settings.retention;
    for kind in [STATUS, FAILED, AT, LEASE] {
        expire(session, database, kind, now, kept).await?;
    }
    for kind in [BOOT, "clock"] {
        expire(session, database, kind, now, is_dead).await?;
    }
    let gone = expire(session, database, DEAD, now, kept).await?;
    if gone > 0 {
        tracing::warn!(dead = gone, retention = ?kept, "dead letters were too old");
        state.count(session, "dead_letters", gone).await?;
    }
    trim(session, database).await
}

/// Removes notes of a kind that are too old.
async fn expire(
    session: &Session,
    database: &Database,
    kind: &str,
    now: SystemTime,
    kept: Duration,
) -> Result<u64, BackendError> {
    let state = &database.state;
    let filter = state.key(kind, ">");
    let mut count = 0;
    for _ in 0..REMOVED {
        let Some(oldest) = js::get(session, &state.stream, Which::NextOf(filter.clone(), 1)).await? else { break };
        if now.duration_since(oldest.stored_at).unwrap_or_default() <= kept {
            break;
        }
        count += u64::from(js::delete(session, &state.stream, oldest.sequence).await?);
    }
    Ok(count)
}

/// Removes messages that everybody has handled, if the stream has a bound and comes near it.
async fn trim(session: &Session, database: &Database) -> Result<(), BackendError> {
    let settings = &database.settings;
    let Some(info) = stream::info(session, database.stream()).await? else { return Ok(()) };
    let number = |name: &str| info["state"][name].as_u64().unwrap_or(0);
    let is_near = |is: u64, bound: u64| bound > 0 && is >= bound - bound / 4;
    if !is_near(number("messages"), settings.max_messages) && !is_near(number("bytes"), settings.max_bytes) {
        return Ok(());
    }
    let (first, last) = (number("first_seq"), number("last_seq"));
    let handled = store::first_open(session, database).await?.unwrap_or(last + 1);
    // Half of what was handled stays, to be looked at.
    let before = handled.min(first + (last + 1 - first) / 2 + 1);
    if before > first {
        let request = json!({ "seq": before });
        js::api(session, &format!("STREAM.PURGE.{}", database.stream()), &request).await??;
    }
    Ok(())
}

impl Ingest for NatsIngest {
    fn receive(&mut self, room: &[Room], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        self.database.intake.begin();
        let received = self.look(room, wait);
        self.database.intake.end();
        received
    }

    fn waker(&self) -> Option<Waker> {
        let intake = Arc::clone(&self.database.intake);
        Some(Arc::new(move || intake.wake()))
    }
}

/// What has come and was not handed out goes back.
impl Drop for NatsIngest {
    fn drop(&mut self) {
        let unwanted = self.database.intake.close();
        if unwanted.is_empty() {
            return;
        }
        let on_thread = Arc::clone(&self.database);
        let told = self
            .database
            .runtime
            .call(move |session| async move { leases::give_back(&session, &on_thread, unwanted).await });
        if let Err(error) = told {
            tracing::debug!(%error, "messages come again when their leases have ended");
        }
    }
}
