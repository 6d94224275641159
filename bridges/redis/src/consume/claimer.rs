//! Claiming for one subscription. What goes before what is new (what was given back, what others have lost, what an answer that was lost has
//! handed over) is taken by a script; what is new is read by a plain command ([`read`](crate::consume::reader)). Where each stream has one owner,
//! the script does both, because only it can see in the same moment whose the stream is.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use eventbroker::provider::{BackendError, Demand, Lease, LeaseToken};
use redis::Value;

use crate::consume::reader::Known;
use crate::partitions::ownership::Share;
use crate::scripts;
use crate::scripts::entry::{bytes, earliest, from_json, list, number, text, texts, unexpected};
use crate::settle::outcome::from_stored;
use crate::transport::link::{Database, Held, Link, Served, millis};

/// Reads in a row that find hardly anything that matches.
const READS: usize = 8;
/// Bytes of events that are read for a subscription before those that it has got are handed over.
const BYTES: usize = 4 << 20;
/// Bytes of an event, before one was seen.
const UNSEEN: usize = 1 << 20;

/// The last entry of each stream, by its key: what comes after it was not seen.
pub(crate) type Lasts = BTreeMap<String, String>;

/// What this provider knows of a subscription that it claims for.
#[derive(Debug)]
pub(crate) struct Claimer {
    database: Arc<Database>,
    served: Served,
    /// It has taken what was left from before it began.
    begun: bool,
    /// A claim got no answer: it may have handed something over all the same.
    unsure: bool,
    /// Something may wait that goes before what is new.
    pub(crate) behind: bool,
    /// The last entry of the bell when that was looked at.
    pub(crate) bell: String,
    /// Entries that were read and are not counted at the server yet, which wants to know what was read if the stream is removed.
    pub(crate) read: usize,
    pub(crate) known: Known,
    /// Bytes of events that it reads at a time.
    budget: usize,
    /// Bytes of an event, as of those that were handed over last.
    size: usize,
    /// The streams of deliveries that it has claimed since this was last asked.
    took: Vec<usize>,
    share: Share,
    /// The server was away until now: others may have to say first that they are alive.
    pub(crate) others_return: bool,
}

/// What one claim is for, and what it has brought.
pub(crate) struct Haul<'a> {
    pub(crate) demand: &'a Demand,
    /// What others have lost is taken as well.
    pub(crate) take_over: bool,
    /// Deliveries that there is still room for.
    pub(crate) left: usize,
    /// Bytes of events that are still read.
    bytes: usize,
    /// When the server was asked last.
    asked: Instant,
    /// What was claimed, also if the claim fails in the end.
    leases: &'a mut Vec<Lease>,
    lasts: &'a mut Lasts,
    /// Entries that are for nobody here, by the number of their stream: they are ended.
    pub(crate) strangers: BTreeMap<usize, Vec<String>>,
    /// Entries that were read and for which there is no room, made again and of the stream: they go back.
    pub(crate) surplus: [Vec<String>; 2],
}

/// A delivery as it was handed over.
pub(crate) struct Taken {
    pub(crate) number: usize,
    pub(crate) entry: String,
    pub(crate) event: Vec<u8>,
    pub(crate) suspect: bool,
    pub(crate) crashes: u32,
    /// Of a retry that has waited: the calls before it, and what they failed of, as JSON.
    pub(crate) attempts: u32,
    pub(crate) errors: Vec<u8>,
}

impl<'a> Haul<'a> {
    pub(crate) fn new(demand: &'a Demand, take_over: bool, leases: &'a mut Vec<Lease>, lasts: &'a mut Lasts) -> Self {
        let (strangers, surplus) = (BTreeMap::new(), Default::default());
        let asked = Instant::now();
        Self { demand, take_over, left: demand.deliveries, bytes: BYTES, asked, leases, lasts, strangers, surplus }
    }

    /// The server is asked now, or a little later.
    pub(crate) fn ask(&mut self) {
        self.asked = Instant::now();
    }

    /// What comes after this entry of a stream was not seen.
    pub(crate) fn note(&mut self, key: &str, last: String) {
        let last = match self.lasts.remove(key) {
            Some(other) => earliest(other, last),
            None => last,
        };
        self.lasts.insert(key.to_owned(), last);
    }
}

impl Claimer {
    pub(crate) fn new(database: &Arc<Database>, served: Served) -> Self {
        Self {
            database: Arc::clone(database),
            share: Share::new(&served.unit),
            took: Vec::new(),
            others_return: false,
            served,
            begun: false,
            unsure: false,
            behind: true,
            bell: String::new(),
            read: 0,
            known: Known::default(),
            budget: BYTES,
            size: UNSEEN,
        }
    }

    pub(crate) fn database(&self) -> Arc<Database> {
        Arc::clone(&self.database)
    }

    pub(crate) fn served(&self) -> &Served {
        &self.served
    }

    /// The streams of the deliveries that it has claimed since this was last asked.
    pub(crate) fn took(&mut self) -> Vec<usize> {
        mem::take(&mut self.took)
    }

    /// Whether what it has in its hands and has not begun should be given back.
    pub(crate) fn wants_back(&mut self) -> bool {
        self.share.wants_back()
    }

    /// Without room there is no next question that tells the server how much was read.
    pub(crate) fn tell_reads(&mut self, link: &mut Link) -> Result<(), BackendError> {
        let read = mem::take(&mut self.read);
        if read == 0 {
            return Ok(());
        }
        let key = format!("{}:read", self.database.streams[0]);
        link.call(|it| redis::cmd("HINCRBY").arg(key).arg(&*self.served.unit).arg(read).query::<()>(it))
    }

    /// There is no room. If it has nothing in its hands either, it is paused, and others do without it; else it may have to give up some.
    pub(crate) fn stand_aside(&mut self, link: &mut Link) -> Result<(), BackendError> {
        if self.database.partitions == 0 {
            return Ok(());
        }
        if self.database.in_hand(&self.served.unit).is_empty() {
            return self.share.leave(&self.database, link);
        }
        self.share.claimable(&self.database, link, self.others_return).map(drop)
    }

    /// Claims what there is room for.
    pub(crate) fn claim(&mut self, link: &mut Link, haul: &mut Haul<'_>) -> Result<(), BackendError> {
        self.behind |= self.database.released.lock().remove(&self.served.unit) || haul.take_over;
        haul.bytes = self.budget;
        let before = haul.leases.len();
        let result = self.claim_all(link, haul);
        // The first of them was asked for first.
        let age = haul.leases.get(before).map(|lease| lease.asked.elapsed());
        let is_late = age.is_some_and(|age| age >= self.database.lease_time / 2);
        // Who needs that long to read takes less the next time, or nothing would ever be in time.
        self.budget = if is_late { (self.budget / 2).max(1) } else { (self.budget * 2).min(BYTES) };
        if is_late {
            // Of what was handed over so long ago others may have something by now: what is still here is asked for again, in its order.
            let mut held = self.database.leases.lock();
            haul.leases.drain(before..).for_each(|lease| _ = held.remove(&lease.token.0));
            (self.unsure, self.behind) = (self.begun, true);
        }
        if let Err(error) = &result {
            self.unsure = self.begun && !is_gone(error);
            self.behind = true;
        }
        result
    }

    fn claim_all(&mut self, link: &mut Link, haul: &mut Haul<'_>) -> Result<(), BackendError> {
        if self.database.partitions > 0 {
            let streams = self.share.claimable(&self.database, link, self.others_return)?;
            if self.share.has_grown() {
                // Another one of its name may have had something of it.
                (self.begun, self.behind) = (false, true);
            }
            haul.take_over |= self.behind;
            return self.ask(link, haul, Some(streams));
        }
        if self.behind || self.unsure || !self.begun {
            self.ask(link, haul, None)?;
        }
        for _ in 0..READS {
            if haul.bytes == 0 {
                break;
            }
            if haul.left == 0 || self.behind || !self.read(link, haul)? {
                return Ok(());
            }
        }
        // There is more of it, perhaps for this subscription: nothing is waited for.
        haul.note(&self.database.streams[0], "0-0".to_owned());
        Ok(())
    }

    /// How many events are read at a time at most.
    pub(crate) fn fits(&self, haul: &Haul<'_>) -> usize {
        (haul.bytes / self.size).max(1)
    }

    /// So many events were read, of so many bytes.
    pub(crate) fn note_size(&mut self, haul: &mut Haul<'_>, events: usize, bytes: usize) {
        haul.bytes = haul.bytes.saturating_sub(bytes);
        if let Some(size) = bytes.checked_div(events) {
            self.size = size.max(1);
        }
    }

    /// Asks the script; of streams that it owns also for what is new.
    fn ask(&mut self, link: &mut Link, haul: &mut Haul<'_>, owned: Option<Vec<usize>>) -> Result<(), BackendError> {
        let database = Arc::clone(&self.database);
        let (member, lease, count) =
            (database.member(), millis(database.lease_time), haul.left.min(self.fits(haul)).to_string());
        let before = match (self.begun, self.unsure) {
            (false, _) => "1",
            (true, true) => "2",
            (true, false) => "0",
        };
        let flag = |it: bool| if it { "1" } else { "0" };
        let (read, owner) = if owned.is_some() { ("1", &*database.boot) } else { ("0", "") };
        let numbers: Vec<usize> = owned.unwrap_or_else(|| (1..=database.streams.len()).collect());
        let mut keys = vec![&*database.prefix];
        keys.extend(numbers.iter().map(|number| &*database.streams[number - 1]));
        let mut told: Vec<String> = numbers.iter().map(usize::to_string).collect();
        if before != "0" {
            let in_hand = database.in_hand(&self.served.unit);
            told.extend(in_hand.into_iter().flat_map(|(number, entry)| [number.to_string(), entry]));
        }
        let unit = &*self.served.unit;
        let mut arguments: Vec<&[u8]> =
            [unit, &member, &count, &lease, flag(haul.take_over), before, read, owner].map(str::as_bytes).to_vec();
        arguments.extend(told.iter().map(String::as_bytes));
        haul.ask();
        let answer = link.call(|connection| scripts::CLAIM_DELIVERIES.run(connection, &keys, &arguments))?;
        let [taken, more, seen] = <[Value; 3]>::try_from(list(answer)?).map_err(|it| unexpected(&Value::Array(it)))?;
        let more = number(more)?;
        self.behind = more > 0;
        if more < 2 {
            (self.begun, self.unsure) = (true, false);
        }
        let (mut events, mut size) = (0, 0);
        for it in list(taken)? {
            let [stream, entry, event, suspect, crashes, attempts, errors] =
                <[Value; 7]>::try_from(list(it)?).map_err(|it| unexpected(&Value::Array(it)))?;
            let (number_of, suspect) = (number(stream)?, number(suspect)? == 1);
            let taken = Taken {
                number: number_of.try_into().unwrap_or(0),
                entry: text(entry)?,
                event: bytes(event)?,
                suspect,
                crashes: number(crashes)?.try_into().unwrap_or(0),
                attempts: number(attempts)?.try_into().unwrap_or(0),
                errors: bytes(errors)?,
            };
            (events, size) = (events + 1, size + taken.event.len());
            self.lease(haul, taken);
        }
        self.note_size(haul, events, size);
        self.put_aside(link, haul)?;
        let mut seen = texts(seen)?.into_iter();
        let bell = seen.next().unwrap_or_default();
        if bell != self.bell {
            self.share.look_again();
        }
        self.bell = bell;
        for (key, last) in keys[1..].iter().zip(seen) {
            haul.note(key, last);
        }
        haul.note(&database.key("bell"), self.bell.clone());
        Ok(())
    }

    /// Takes a delivery. What is no event is none.
    pub(crate) fn lease(&mut self, haul: &mut Haul<'_>, taken: Taken) {
        haul.left = haul.left.saturating_sub(1);
        let Taken { number, entry, event, suspect, crashes, attempts, errors } = taken;
        let unit = self.served.unit.clone();
        let event = match from_json(&event) {
            Ok(event) => event,
            Err(error) => {
                // Somebody has written what is no event: it may not stand in the way of the others.
                tracing::warn!(entry, %error, "an entry of the stream is no event");
                if number > 0 {
                    haul.strangers.entry(number).or_default().push(entry);
                }
                return;
            }
        };
        if number > 0 {
            self.took.push(number);
        }
        let token = self.database.next_number();
        let held = Held { unit, number, entry, suspect, gone: false, event: event.clone() };
        self.database.leases.lock().insert(token, held);
        let lease = Lease::new(LeaseToken(token), Arc::clone(&haul.demand.subscription), event).asked_at(haul.asked);
        let lease = if suspect { lease.suspected(crashes) } else { lease };
        let tried = || from_stored(serde_json::from_slice(&errors).unwrap_or_default());
        haul.leases.push(if attempts > 0 { lease.tried(attempts, tried()) } else { lease });
    }

    /// Gives back what there was no room for, and ends what is for nobody here.
    pub(crate) fn put_aside(&mut self, link: &mut Link, haul: &mut Haul<'_>) -> Result<(), BackendError> {
        let (database, unit) = (&self.database, &*self.served.unit);
        let again = database.key(&format!("again:{unit}"));
        let mut run = |script: &scripts::Script, key: &str, entries: Vec<String>| {
            let mut arguments = vec![unit.as_bytes()];
            arguments.extend(entries.iter().map(String::as_bytes));
            link.call(|connection| script.run(connection, &[key], &arguments)).map(drop)
        };
        for (key, entries) in [&again, &database.streams[0]].into_iter().zip(mem::take(&mut haul.surplus)) {
            if !entries.is_empty() {
                self.behind = true;
                run(&scripts::RELEASE_LEASE, key, entries)?;
            }
        }
        for (number, entries) in mem::take(&mut haul.strangers) {
            run(&scripts::ACK_ENTRIES, &database.streams[number - 1], entries)?;
        }
        Ok(())
    }
}

/// Whether a group or its stream is not there.
pub(crate) fn is_gone(error: &BackendError) -> bool {
    error.to_string().contains("NOGROUP")
}
