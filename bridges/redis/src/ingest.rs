//! The way in: claims what is ready, waits for more, and sees to what nobody else does: the deliveries of members that died, subscriptions
//! that nobody serves, entries that everybody has handled.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::{BackendError, Ingest, Lease, LeaseToken, Room, Waker};
use redis::Value;

use crate::connection::{Database, Held, Link, Served, millis};
use crate::entry::{bytes, earliest, entries, from_json, latest, list, number, since_epoch, text, unexpected};
use crate::watch::Watch;
use crate::{scripts, settler, store};

/// Time between two looks for what is old.
const CLEAN_UP_EVERY: Duration = Duration::from_secs(10);
/// How long those who live may take to show it when the server is back: their connections' pauses, and those of their threads.
const RETURN: Duration = Duration::from_secs(2);
/// How long it waits for the server at a time: so late it sees that it was woken.
const WAIT: Duration = Duration::from_millis(100);
/// Entries that are looked at to find out which may go.
const LOOK: usize = 1_000;

/// What was claimed, and the last entries of the stream and of the bell; nothing if there was nobody to claim for.
type Claimed = (Vec<Lease>, Option<[String; 2]>);

#[derive(Debug)]
pub(crate) struct RedisIngest {
    database: Arc<Database>,
    link: Link,
    watch: Watch,
    next_care: Instant,
    next_clean_up: Instant,
    /// The subscriptions of which it has taken what was left from before it began, by their groups.
    begun: Vec<String>,
    /// Those whose claim got no answer: it may have handed something over all the same.
    unsure: Vec<String>,
}

impl RedisIngest {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        let now = Instant::now();
        let (watch, link) = (Watch::new(database), Link::new(database));
        let database = Arc::clone(database);
        Self { database, link, watch, next_care: now, next_clean_up: now, begun: Vec::new(), unsure: Vec::new() }
    }

    /// Claims what is ready. What was claimed before an answer was lost is returned all the same.
    fn claim(&mut self, room: &[Room], take_over: bool) -> Result<Claimed, BackendError> {
        let (mut leases, mut last) = (Vec::new(), None);
        for room in room {
            let Some(served) = self.database.served.lock().get(&room.subscription).cloned() else { continue };
            match self.claim_of(room, &served, take_over, &mut leases) {
                Ok(seen) => {
                    self.unsure.retain(|unit| *unit != served.unit);
                    last = Some(seen);
                }
                Err(error) if is_gone(&error) => {
                    // Somebody has removed the stream: what is in the new one was not seen by anybody.
                    settler::make(&mut self.link, &served, true, "0")?;
                    self.watch.hurry();
                }
                Err(error) => {
                    if self.begun.contains(&served.unit) && !self.unsure.contains(&served.unit) {
                        self.unsure.push(served.unit);
                    }
                    return if leases.is_empty() { Err(error) } else { Ok((leases, None)) };
                }
            }
        }
        Ok((leases, last))
    }

    /// The same of one subscription. Returns the last entries of the stream and of the bell.
    fn claim_of(
        &mut self,
        room: &Room,
        served: &Served,
        take_over: bool,
        leases: &mut Vec<Lease>,
    ) -> Result<[String; 2], BackendError> {
        let database = Arc::clone(&self.database);
        let (member, lease) = (database.member(), millis(database.lease_time));
        let is_unsure = self.unsure.contains(&served.unit);
        let before = match (self.begun.contains(&served.unit), is_unsure) {
            (false, _) => "1",
            (true, true) => "2",
            (true, false) => "0",
        };
        let (count, take_over) = (room.deliveries.to_string(), if take_over { "1" } else { "0" });
        let mut arguments: Vec<&[u8]> =
            [&*served.unit, &member, &count, &lease, take_over, before].map(str::as_bytes).to_vec();
        let in_hand = if is_unsure { database.in_hand(&served.unit) } else { Vec::new() };
        arguments.extend(in_hand.iter().flat_map(|(which, entry)| [which.as_bytes(), entry.as_bytes()]));
        let answer = self.link.run(&scripts::CLAIM, &arguments)?;
        let [stream, bell, taken] =
            <[Value; 3]>::try_from(list(answer)?).map_err(|it| unexpected(&Value::Array(it)))?;
        if !self.begun.contains(&served.unit) {
            self.begun.push(served.unit.clone());
        }
        for it in list(taken)? {
            leases.extend(self.lease(it, &room.subscription, served)?);
        }
        Ok([text(stream)?, text(bell)?])
    }

    fn lease(&mut self, taken: Value, name: &Arc<str>, served: &Served) -> Result<Option<Lease>, BackendError> {
        let [which, entry, event, suspect, crashes] =
            <[Value; 5]>::try_from(list(taken)?).map_err(|it| unexpected(&Value::Array(it)))?;
        let (again, entry) = (text(which)? == "again", text(entry)?);
        let (suspect, crashes) = (number(suspect)? == 1, number(crashes)?);
        let event = match from_json(&bytes(event)?) {
            Ok(event) => event,
            Err(error) => {
                // Somebody has written what is no event: it may not stand in the way of the others.
                tracing::warn!(entry, %error, "an entry of the stream is no event");
                let (stream, unit) = (self.database.stream.clone(), served.unit.clone());
                self.link.call(|it| redis::cmd("XACK").arg(stream).arg(unit).arg(&entry).query::<()>(it))?;
                return Ok(None);
            }
        };
        if !again {
            self.watch.took(&served.unit);
        }
        let token = self.database.next_number();
        let held = Held { unit: served.unit.clone(), again, entry, suspect, gone: false, event: event.clone() };
        self.database.leases.lock().insert(token, held);
        let lease = Lease::new(LeaseToken(token), Arc::clone(name), event);
        Ok(Some(if suspect { lease.suspected(crashes.try_into().unwrap_or(0)) } else { lease }))
    }

    /// Waits until something is stored after these entries, somebody rings or wakes it, or there is something to see to.
    fn wait(&mut self, last: &[String; 2], deadline: Instant) -> Result<(), BackendError> {
        let database = Arc::clone(&self.database);
        let until = deadline.min(self.next_care).min(self.next_clean_up).min(self.watch.next());
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || database.woken.load(Ordering::SeqCst) {
                return Ok(());
            }
            let block = left.min(WAIT).as_millis().max(1) as u64;
            let heard = self.link.wait(|connection| {
                let mut read = redis::cmd("XREAD");
                read.arg("COUNT").arg(1).arg("BLOCK").arg(block).arg("STREAMS");
                read.arg(&database.stream).arg(database.key("bell")).arg(&last[0]).arg(&last[1]).query(connection)
            })?;
            if heard != Some(Value::Nil) {
                return Ok(());
            }
        }
    }

    /// Removes what nobody asks for any more.
    fn clean_up(&mut self) -> Result<(), BackendError> {
        let database = Arc::clone(&self.database);
        let (subscriptions, used) = (database.key("subscriptions"), database.key("used"));
        let known: HashMap<String, String> = self.link.call(|it| redis::cmd("HGETALL").arg(subscriptions).query(it))?;
        let used: HashMap<String, u64> = self.link.call(|it| redis::cmd("HGETALL").arg(used).query(it))?;
        let now = since_epoch(SystemTime::now());
        for (unit, info) in &known {
            let owner = serde_json::from_str::<settler::Info>(info).map(|info| info.owner).unwrap_or_default();
            let is_gone = !owner.is_empty() && {
                let boot = database.key(&format!("boot:{owner}"));
                !self.link.call(|connection| redis::cmd("EXISTS").arg(boot).query::<bool>(connection))?
            };
            let last_use = used.get(unit).map(|at| Duration::from_millis(*at));
            let is_unused = last_use.is_some_and(|at| at + database.idle_expiry < now);
            if is_unused {
                tracing::warn!(unit, idle_expiry = ?database.idle_expiry, "nobody used a subscription: it is removed");
                let expired = database.key("expired");
                self.link.call(|it| redis::cmd("HINCRBY").arg(expired).arg("subscriptions").arg(1).query::<()>(it))?;
            }
            if is_gone || is_unused {
                self.link.run(&scripts::FORGET, &[unit.as_bytes()])?;
            }
        }
        self.expire_letters()?;
        self.trim()
    }

    /// Removes dead letters of this group that are too old.
    fn expire_letters(&mut self) -> Result<(), BackendError> {
        let database = Arc::clone(&self.database);
        let of_group = database.key(&format!("letters:of:{}", database.group));
        let oldest: Vec<u64> =
            self.link.call(|it| redis::cmd("ZRANGE").arg(of_group).arg(0).arg(LOOK - 1).query(it))?;
        if oldest.is_empty() {
            return Ok(());
        }
        let letters: Vec<Option<String>> =
            self.link.call(|it| redis::cmd("HMGET").arg(database.key("letters")).arg(&oldest).query(it))?;
        let is_old = |text: &String| {
            serde_json::from_str::<settler::Letter>(text)
                .is_ok_and(|letter| SystemTime::from(letter.dead_at) + database.retention < SystemTime::now())
        };
        let old = oldest.iter().zip(&letters).filter(|(_, letter)| letter.as_ref().is_some_and(is_old));
        let old: Vec<String> = old.map(|(number, _)| number.to_string()).collect();
        if old.is_empty() {
            return Ok(());
        }
        tracing::warn!(dead = old.len(), retention = ?database.retention, "dead letters were too old");
        let mut arguments: Vec<&[u8]> = vec![database.group.as_bytes()];
        arguments.extend(old.iter().map(String::as_bytes));
        let gone = number(self.link.run(&scripts::PURGE, &arguments)?)?;
        let expired = database.key("expired");
        self.link.call(|it| redis::cmd("HINCRBY").arg(expired).arg("dead_letters").arg(gone).query::<()>(it))
    }

    /// Removes entries that everybody has handled, if they are too old or too many.
    fn trim(&mut self) -> Result<(), BackendError> {
        let database = Arc::clone(&self.database);
        let stream = &database.stream;
        let handled = store::first_open(&mut self.link, stream)?;
        let too_old = since_epoch(SystemTime::now()).saturating_sub(database.retention);
        let mut before = format!("{}-0", too_old.as_millis());
        let forgotten = database.key("failed");
        let too_old = too_old.as_secs();
        self.link.call(|it| redis::cmd("ZREMRANGEBYSCORE").arg(forgotten).arg("-inf").arg(too_old).query::<()>(it))?;
        let length: usize = self.link.call(|it| redis::cmd("XLEN").arg(stream).query(it))?;
        let surplus = length.saturating_sub(database.max_len.try_into().unwrap_or(usize::MAX));
        if database.max_len > 0 && surplus > 0 {
            let look = surplus.min(LOOK) + 1;
            let oldest: Value = self
                .link
                .call(|it| redis::cmd("XRANGE").arg(stream).arg("-").arg("+").arg("COUNT").arg(look).query(it))?;
            if let Some((first_to_stay, _)) = entries(oldest)?.pop() {
                before = latest(before, first_to_stay);
            }
        }
        let before = handled.map_or(before.clone(), |handled| earliest(before, handled));
        let gone: usize = self.link.call(|it| redis::cmd("XTRIM").arg(stream).arg("MINID").arg(before).query(it))?;
        if gone >= LOOK {
            // There may be more.
            self.next_clean_up = Instant::now();
        }
        Ok(())
    }

    fn look(&mut self, room: &[Room], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        let deadline = Instant::now() + wait;
        loop {
            let now = Instant::now();
            let take_over = now >= self.next_care;
            if take_over {
                self.next_care = now + self.database.lease_time / 4;
            }
            if now >= self.next_clean_up {
                self.next_clean_up = now + CLEAN_UP_EVERY.min(self.database.idle_expiry);
                self.clean_up()?;
            }
            let (leases, last) = self.claim(room, take_over)?;
            if let Err(error) = self.watch.look(&mut self.link) {
                // What was claimed is returned all the same.
                return if leases.is_empty() { Err(error) } else { Ok(leases) };
            }
            let now = Instant::now();
            if !leases.is_empty() || now >= deadline || self.database.woken.swap(false, Ordering::SeqCst) {
                return Ok(leases);
            }
            match last {
                Some(last) => self.wait(&last, deadline)?,
                // Nobody is registered yet.
                None => thread::sleep(WAIT.min(deadline - now)),
            }
        }
    }
}

/// Whether a group or its stream is not there.
fn is_gone(error: &BackendError) -> bool {
    error.to_string().contains("NOGROUP")
}

impl Ingest for RedisIngest {
    fn receive(&mut self, room: &[Room], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        self.begun.retain(|unit| self.database.served.lock().values().any(|served| served.unit == *unit));
        let received = self.look(room, wait);
        if received.is_err() {
            // While the server was away nobody could extend a lease: those who live do so before anybody is taken for dead.
            self.next_care = self.next_care.max(Instant::now() + RETURN.max(self.database.lease_time / 2));
        }
        received
    }

    fn waker(&self) -> Option<Waker> {
        let database = Arc::clone(&self.database);
        Some(Arc::new(move || database.woken.store(true, Ordering::SeqCst)))
    }
}
