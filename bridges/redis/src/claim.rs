//! Claiming for one subscription. What goes before what is new (what was given back, what others have lost, what an answer that was lost has
//! handed over) is taken by a script; what is new is read by a plain command, and matched here. Where each stream has one owner, the
//! script does both, because only it can see in the same moment whose the stream is.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::sync::Arc;

use eventbroker::Pattern;
use eventbroker::provider::{BackendError, Lease, LeaseToken, Room};
use redis::Value;

use crate::answer::{Answer, Entry};
use crate::connection::{Database, Held, Link, Served, millis};
use crate::entry::{bytes, earliest, from_json, list, number, parts, text, texts, unexpected};
use crate::scripts;
use crate::share::Share;
use crate::subscriptions::Info;
use crate::wire::{Request, exchange};

/// Reads in a row that find hardly anything that matches.
const READS: usize = 8;
/// The least that is read at a time: most of it may not match.
const LEAST: usize = 100;
/// The most of one question: the server works on the next one while it is read.
const CHUNK: usize = 256;
/// The same of the first question, which nothing is read beside.
const FIRST: usize = 64;

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
    behind: bool,
    /// The last entry of the bell when that was looked at.
    bell: String,
    /// Entries that were read and are not counted at the server yet, which wants to know what was read if the stream is removed.
    read: usize,
    known: Known,
    /// The streams of deliveries that it has claimed since this was last asked.
    took: Vec<usize>,
    share: Share,
    /// The server was away until now: others may have to say first that they are alive.
    pub(crate) others_return: bool,
}

/// What the server knows of the subscription, as it was last told.
#[derive(Debug, Default)]
struct Known {
    text: Vec<u8>,
    pattern: Option<Pattern>,
    /// Patterns of earlier times: for entries up to these.
    earlier: Vec<(Vec<String>, Pattern)>,
}

/// A delivery as it was handed over.
struct Taken {
    number: usize,
    entry: String,
    event: Vec<u8>,
    suspect: bool,
    crashes: u32,
}

impl Known {
    /// Nothing is taken for a stranger because nobody can tell: what can't be read is an error, and so is a subscription that is not there.
    fn of(text: Vec<u8>) -> Result<Self, BackendError> {
        if text.is_empty() {
            return Err(BackendError::Unavailable("NOGROUP the subscription is not known".to_owned()));
        }
        let problem =
            |error: &dyn fmt::Display| BackendError::Unavailable(format!("what is known of it is damaged: {error}"));
        let info: Info = serde_json::from_slice(&text).map_err(|error| problem(&error))?;
        let parse = |pattern: &str| Pattern::parse(pattern).map_err(|error| problem(&error));
        let mut earlier = Vec::new();
        for it in &info.patterns {
            earlier.push((it.until_entries.clone(), parse(&it.pattern)?));
        }
        Ok(Self { pattern: Some(parse(&info.pattern)?), earlier, text })
    }

    /// Whether an entry of a stream is for the subscription.
    fn matches(&self, number: usize, entry: &str, event_type: &[u8]) -> bool {
        let is_until = |until: &Vec<String>| until.get(number - 1).is_some_and(|it| parts(entry) <= parts(it));
        let earlier = self.earlier.iter().find(|(until, _)| is_until(until)).map(|(_, pattern)| pattern);
        let (pattern, event_type) = (earlier.or(self.pattern.as_ref()), str::from_utf8(event_type));
        pattern.zip(event_type.ok()).is_some_and(|(pattern, event_type)| pattern.matches(event_type))
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
        }
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

    /// Claims what there is room for. What was claimed before an answer was lost stays in `leases`, and so does what others have lost if
    /// it should `take_over` that. Notes the last entries that it has seen.
    pub(crate) fn claim(
        &mut self,
        link: &mut Link,
        room: &Room,
        take_over: bool,
        leases: &mut Vec<Lease>,
        lasts: &mut Lasts,
    ) -> Result<(), BackendError> {
        self.behind |= self.database.released.lock().remove(&self.served.unit) || take_over;
        let result = self.claim_all(link, room, take_over, leases, lasts);
        if let Err(error) = &result {
            self.unsure = self.begun && !is_gone(error);
            self.behind = true;
        }
        result
    }

    fn claim_all(
        &mut self,
        link: &mut Link,
        room: &Room,
        take_over: bool,
        leases: &mut Vec<Lease>,
        lasts: &mut Lasts,
    ) -> Result<(), BackendError> {
        let mut left = room.deliveries;
        if self.database.partitions > 0 {
            let streams = self.share.claimable(&self.database, link, self.others_return)?;
            if self.share.has_grown() {
                // Another one of its name may have had something of it.
                (self.begun, self.behind) = (false, true);
            }
            let take_over = take_over || self.behind;
            return self.ask(link, room, &mut left, take_over, Some(streams), leases, lasts);
        }
        if self.behind || self.unsure || !self.begun {
            self.ask(link, room, &mut left, take_over, None, leases, lasts)?;
        }
        for _ in 0..READS {
            if left == 0 || self.behind || !self.read(link, room, &mut left, leases, lasts)? {
                break;
            }
        }
        Ok(())
    }

    /// Asks the script; of streams that it owns also for what is new.
    #[allow(clippy::too_many_arguments, reason = "what is claimed, for whom, and where it goes")]
    fn ask(
        &mut self,
        link: &mut Link,
        room: &Room,
        left: &mut usize,
        take_over: bool,
        owned: Option<Vec<usize>>,
        leases: &mut Vec<Lease>,
        lasts: &mut Lasts,
    ) -> Result<(), BackendError> {
        let database = Arc::clone(&self.database);
        let (member, lease, count) = (database.member(), millis(database.lease_time), left.to_string());
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
            [unit, &member, &count, &lease, flag(take_over), before, read, owner].map(str::as_bytes).to_vec();
        arguments.extend(told.iter().map(String::as_bytes));
        let answer = link.call(|connection| scripts::CLAIM.run(connection, &keys, &arguments))?;
        let [taken, more, seen] = <[Value; 3]>::try_from(list(answer)?).map_err(|it| unexpected(&Value::Array(it)))?;
        (self.begun, self.unsure, self.behind) = (true, false, number(more)? == 1);
        for it in list(taken)? {
            let [stream, entry, event, suspect, crashes] =
                <[Value; 5]>::try_from(list(it)?).map_err(|it| unexpected(&Value::Array(it)))?;
            let (number_of, suspect) = (number(stream)?, number(suspect)? == 1);
            let taken = Taken {
                number: number_of.try_into().unwrap_or(0),
                entry: text(entry)?,
                event: bytes(event)?,
                suspect,
                crashes: number(crashes)?.try_into().unwrap_or(0),
            };
            *left = left.saturating_sub(1);
            leases.extend(self.lease(link, taken, room)?);
        }
        let mut seen = texts(seen)?.into_iter();
        let bell = seen.next().unwrap_or_default();
        if bell != self.bell {
            self.share.look_again();
        }
        self.bell = bell;
        for (key, last) in keys[1..].iter().zip(seen) {
            note(lasts, key, last);
        }
        note(lasts, &database.key("bell"), self.bell.clone());
        Ok(())
    }

    /// Reads what is new. False if there is no more of it.
    fn read(
        &mut self,
        link: &mut Link,
        room: &Room,
        left: &mut usize,
        leases: &mut Vec<Lease>,
        lasts: &mut Lasts,
    ) -> Result<bool, BackendError> {
        let most = (*left).max(LEAST);
        let mut wanted = most;
        let mut questions = Vec::new();
        while wanted > 0 {
            let count = wanted.min(if questions.is_empty() { FIRST } else { CHUNK });
            let read = mem::take(&mut self.read);
            questions.push(self.question(count, read));
            wanted -= count;
        }
        let database = Arc::clone(&self.database);
        let stream = &*database.streams[0];
        let (mut answers, mut found) = (Vec::new(), 0);
        link.call(|connection| {
            exchange(connection, &questions, 5, |answer| {
                let answer = Answer::of(answer, stream);
                let entries = answer.as_ref().map_or(0, |answer| answer.entries.len());
                found += entries;
                answers.push(answer);
                // The next one is only worth its while if this one was answered in full.
                entries >= if answers.len() == 1 { FIRST } else { CHUNK }
            })
        })?;
        for answer in answers {
            self.take(link, answer?, room, left, leases, lasts)?;
        }
        Ok(found >= most)
    }

    /// Asks for so many new entries; tells how many were read before.
    fn question(&self, count: usize, read: usize) -> Request {
        let (database, unit) = (&self.database, &*self.served.unit);
        let (stream, count, read) = (&database.streams[0], count.to_string(), read.to_string());
        let mut asked = Request::default();
        asked.command(4).word("HINCRBY").word(format!("{stream}:read")).word(unit).word(read);
        asked.command(6).word("XREVRANGE").word(stream).word("+").word("-").word("COUNT").word("1");
        asked
            .command(6)
            .word("XREAD")
            .word("COUNT")
            .word("1")
            .word("STREAMS")
            .word(database.key("bell"))
            .word(&self.bell);
        asked.command(11).word("XREADGROUP").word("GROUP").word(unit).word(database.member()).word("COUNT").word(count);
        asked.word("STREAMS").word(database.key(&format!("again:{unit}"))).word(stream).word(">").word(">");
        asked.command(3).word("HGET").word(database.key("subscriptions")).word(unit);
        asked
    }

    /// Takes what was read.
    fn take(
        &mut self,
        link: &mut Link,
        answer: Answer,
        room: &Room,
        left: &mut usize,
        leases: &mut Vec<Lease>,
        lasts: &mut Lasts,
    ) -> Result<(), BackendError> {
        let (database, unit) = (Arc::clone(&self.database), self.served.unit.clone());
        let stream = &database.streams[0];
        // What is given back from now on is seen by the next claim.
        self.behind |= answer.is_rung;
        if answer.info.is_empty() || answer.info != self.known.text {
            self.known = Known::of(answer.info)?;
        }
        note(lasts, stream, answer.last);
        note(lasts, &database.key("bell"), self.bell.clone());
        // What was given back meanwhile goes first.
        let is_overtaken = database.released.lock().contains(&unit);
        let (mut strangers, mut surplus) = (Vec::new(), [Vec::new(), Vec::new()]);
        for Entry { is_again, name, event_type, event } in answer.entries {
            let number = usize::from(!is_again);
            self.read += number;
            if number == 1 && !self.known.matches(number, &name, &event_type) {
                strangers.push(name);
            } else if *left == 0 || is_overtaken {
                surplus[number].push(name);
            } else {
                *left -= 1;
                let taken = Taken { number, entry: name, event, suspect: false, crashes: 0 };
                leases.extend(self.lease(link, taken, room)?);
            }
        }
        for (key, names) in [&database.key(&format!("again:{unit}")), stream].into_iter().zip(surplus) {
            if !names.is_empty() {
                self.behind = true;
                let mut arguments = vec![unit.as_bytes()];
                arguments.extend(names.iter().map(String::as_bytes));
                link.call(|it| scripts::BACK.run(it, &[key], &arguments))?;
            }
        }
        end(link, stream, &unit, &strangers)
    }

    /// What is no event is none.
    fn lease(&mut self, link: &mut Link, taken: Taken, room: &Room) -> Result<Option<Lease>, BackendError> {
        let Taken { number, entry, event, suspect, crashes } = taken;
        let unit = self.served.unit.clone();
        let event = match from_json(&event) {
            Ok(event) => event,
            Err(error) => {
                // Somebody has written what is no event: it may not stand in the way of the others.
                tracing::warn!(entry, %error, "an entry of the stream is no event");
                if number > 0 {
                    end(link, &self.database.streams[number - 1], &unit, &[entry])?;
                }
                return Ok(None);
            }
        };
        if number > 0 {
            self.took.push(number);
        }
        let token = self.database.next_number();
        let held = Held { unit, number, entry, suspect, gone: false, event: event.clone() };
        self.database.leases.lock().insert(token, held);
        let lease = Lease::new(LeaseToken(token), Arc::clone(&room.subscription), event);
        Ok(Some(if suspect { lease.suspected(crashes) } else { lease }))
    }
}

/// Ends deliveries of a stream without anybody's help.
fn end(link: &mut Link, stream: &str, unit: &str, entries: &[String]) -> Result<(), BackendError> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut arguments = vec![unit.as_bytes()];
    arguments.extend(entries.iter().map(String::as_bytes));
    link.call(|connection| scripts::ACK.run(connection, &[stream], &arguments)).map(drop)
}

fn note(lasts: &mut Lasts, key: &str, last: String) {
    let last = match lasts.remove(key) {
        Some(other) => earliest(other, last),
        None => last,
    };
    lasts.insert(key.to_owned(), last);
}

/// Whether a group or its stream is not there.
pub(crate) fn is_gone(error: &BackendError) -> bool {
    error.to_string().contains("NOGROUP")
}
