//! The way in: hands out what has come, asks for more, and sees to it that what nobody else does is done ([`upkeep`](crate::housekeeping)).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, Demand, Ingest, Lease, LeaseToken, Waker};

use crate::consume::pull_loop as reader;
use crate::consume::pull_state::{Arrived, Source, is_fresh};
use crate::consume::recovery as holds;
use crate::housekeeping as upkeep;
use crate::jetstream::entry::{from_json, is_of_the_original, is_ours};
use crate::jetstream::kv::write;
use crate::jetstream::message::{self as js, DONE};
use crate::partitions::selection::Turns;
use crate::provider::backend::{Database, Held, Known, Served};
use crate::query::store::AT;
use crate::settle::lease_record as leases;
use crate::settle::pending_acks as unconfirmed;
use crate::subscriptions::{self as registry, Leg};

/// Time between two looks for what is old.
const CLEAN_UP_EVERY: Duration = Duration::from_secs(10);
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
    /// Which consumers it may take from.
    turns: Turns,
}

impl NatsIngest {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self {
            database: Arc::clone(database),
            next_clean_up: Instant::now(),
            highest: HashMap::new(),
            turns: Turns::default(),
        }
    }

    fn look(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>, BackendError> {
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
                database
                    .runtime
                    .call_long(move |session| async move { upkeep::clean_up(&session, &on_thread).await })?;
            }
            self.turns.see_to(&database, demand)?;
            let leases = self.claim(demand);
            holds::look_again(&database);
            let now = Instant::now();
            if !leases.is_empty() || now >= deadline {
                return Ok(leases);
            }
            let is_short = database.served.lock().len() > demand.len() || database.intake.is_on_hold();
            let look = if is_short { now + LOOK_EVERY } else { deadline };
            let look = self.turns.next(&database).map_or(look, |next| next.min(look));
            if database.intake.wait(deadline.min(self.next_clean_up).min(look)) {
                return Ok(Vec::new());
            }
        }
    }

    /// Hands out what has come, and asks for more.
    fn claim(&mut self, demand: &[Demand]) -> Vec<Lease> {
        let database = Arc::clone(&self.database);
        database.intake.see(database.runtime.generation());
        let served: Vec<(Arc<str>, Served)> =
            database.served.lock().iter().map(|(name, it)| (Arc::clone(name), it.clone())).collect();
        let served: HashMap<Arc<str>, (String, Vec<Arc<Leg>>)> =
            served.into_iter().map(|(name, it)| (name, (it.unit.clone(), self.turns.legs(&database, &it)))).collect();
        let units: HashSet<&str> = served.values().map(|(unit, _)| unit.as_str()).collect();
        let divided: HashSet<Arc<str>> = served.values().flat_map(|(_, legs)| legs).map(|leg| leg.ack_name()).collect();
        let (mut leases, mut pulls, mut acks, mut foreign) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut roomy = HashSet::new();
        let rooms: HashMap<&str, HashMap<u32, usize>> =
            units.iter().map(|unit| (*unit, self.turns.rooms(&database, unit))).collect();
        let handing_out = database.handing_out.lock();
        // Looked at when something may be known already.
        let mut in_hand: Option<HashSet<Known>> = None;
        for demand in demand {
            let Some((unit, legs)) = served.get(&demand.subscription) else { continue };
            roomy.insert(unit.as_str());
            for (leg, arrived) in
                database.intake.take(unit, legs, demand.deliveries, &rooms[unit.as_str()], &database, &mut pulls)
            {
                let ack = || arrived.ack(leg.ack_name(), DONE);
                let sequence = arrived.entry.sequence;
                if database.floors.is_below(&leg, sequence) {
                    acks.push(ack());
                    continue;
                }
                let known = || -> Known { (leg.ack_name(), sequence, arrived.entry.stored_at) };
                let highest = self.highest.entry(leg.ack_name()).or_default();
                let may_be_known = arrived.delivered > 1 || sequence <= *highest;
                *highest = sequence.max(*highest);
                // It may have come again before the server has heard of it, or the server has forgotten what it heard.
                if may_be_known && in_hand.is_none() {
                    in_hand = Some(database.in_hand());
                }
                if in_hand.as_mut().is_some_and(|it| !it.insert(known())) {
                    continue;
                }
                if may_be_known && database.recent.is_settled(unit, &known()) {
                    acks.push(ack());
                    continue;
                }
                match lease(&database, &demand.subscription, &leg, &arrived, &mut foreign) {
                    Some(lease) => leases.push((arrived.fresh, lease)),
                    None => acks.push(ack()),
                }
            }
        }
        drop(handing_out);
        let is_served = |it: &Source| {
            units.contains(it.unit.as_str()) && (it.leg.partition.is_none() || divided.contains(&it.leg.ack_name()))
        };
        let mut unwanted = self.turns.unwanted();
        unwanted.extend(database.intake.unwanted(is_served, |unit| roomy.contains(unit)));
        if !pulls.is_empty() {
            reader::ask(&database, pulls);
        }
        if !(acks.is_empty() && unwanted.is_empty() && foreign.is_empty()) {
            let on_thread = Arc::clone(&database);
            database.runtime.post(move |session| {
                let session = session.ok()?;
                Some(Box::pin(async move {
                    let done = async {
                        js::ack_all(&session, &acks).await?;
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
        // What this process has slept over, now or before, is somebody else's by now, or comes again in its order.
        let is_old = |(fresh, _): &(Instant, Lease)| !is_fresh(*fresh, database.settings.lease_time);
        if leases.iter().any(is_old) || !self.turns.are_fresh(&database) {
            let mut held = database.leases.lock();
            let gone: Vec<Held> = leases.drain(..).filter_map(|(_, lease)| held.remove(&lease.token.0)).collect();
            drop(held);
            if database.partitions() > 0 {
                let consumers: HashSet<Arc<str>> = gone.iter().map(|held| held.leg.ack_name()).collect();
                consumers.iter().for_each(|consumer| database.intake.hold(consumer));
            } else {
                database.intake.forget(database.runtime.generation());
                database.runtime.post(|session| {
                    session.ok()?.give_up("the process has slept");
                    None
                });
            }
        }
        leases.into_iter().map(|(_, lease)| lease).collect()
    }
}

/// A message as a lease; nothing if it is not for this subscription, or no event.
fn lease(
    database: &Database,
    name: &Arc<str>,
    leg: &Arc<Leg>,
    arrived: &Arrived,
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
    let requeues = if leg.again { entry.header(REQUEUES).and_then(|text| text.parse().ok()) } else { None };
    let held = Held {
        leg: Arc::clone(leg),
        name: Arc::clone(name),
        requeues: requeues.unwrap_or(0),
        reply: Arc::clone(&arrived.reply),
        sequence: entry.sequence,
        stored_at: entry.stored_at,
        delivered: arrived.delivered,
        generation: arrived.generation,
        note: arrived.known.note,
        noted: arrived.known.noted,
        is_ending: false,
        fresh: Instant::now(),
        is_late: false,
        event: event.clone(),
    };
    database.leases.lock().insert(token, held);
    let lease = Lease::new(LeaseToken(token), Arc::clone(name), event);
    Some(if arrived.known.suspect { lease.suspected(arrived.known.note.crashes) } else { lease })
}

impl Ingest for NatsIngest {
    fn receive(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        self.database.intake.begin();
        let received = self.look(demand, wait);
        self.database.intake.end();
        received
    }

    fn wanted_back(&mut self) -> Vec<Arc<str>> {
        let units = self.database.shares.lock().wanted_back();
        let served = self.database.served.lock();
        let wanted = served.iter().filter(|(_, it)| units.contains(&it.unit));
        wanted.map(|(name, _)| Arc::clone(name)).collect()
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
