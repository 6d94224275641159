//! What operators ask for: dead letters, deliveries made again, the lag of the subscriptions, a view of the events as they come.

use std::fmt;
use std::mem;
use std::sync::Arc;
use std::time::SystemTime;

use eventbroker::dead_letter::{DeadLetter, DeadLetterFilter};
use eventbroker::provider::{BackendError, Operator, Replay, Replayed, Tail};
use eventbroker::query::Order;
use eventbroker::stats::{BackEndStats, SubscriptionLag};
use eventbroker::{Event, EventId, Pattern, StartPosition};
use parking_lot::Mutex;
use redis::Value;

use crate::query::store;
use crate::query::tail::RedisTail;
use crate::scripts;
use crate::scripts::Script;
use crate::scripts::entry::{Group, earliest, entries, event_of, from_json, list, number, text, texts, to_json};
use crate::scripts::merge_scan::{Walk, places_at};
use crate::settle::outcome::{Letter, from_stored};
use crate::subscriptions::Info;
use crate::transport::link::{Database, Link};

/// Letters, and entries, of one answer.
const STEP: usize = 500;
/// Entries that are counted to tell how much waits for one subscription.
const COUNTED: usize = 10_000;

pub(crate) struct RedisOperator {
    database: Arc<Database>,
    link: Mutex<Link>,
}

impl RedisOperator {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self { database: Arc::clone(database), link: Mutex::new(Link::new(database)) }
    }

    fn letters_key(&self) -> String {
        self.database.key(&format!("letters:of:{}", self.database.group))
    }

    /// What is known of every subscription, by its consumer group.
    fn subscriptions(&self, link: &mut Link) -> Result<Vec<(String, Info)>, BackendError> {
        let key = self.database.key("subscriptions");
        let known: Vec<(String, String)> = link.call(|it| redis::cmd("HGETALL").arg(key).query(it))?;
        Ok(known.into_iter().filter_map(|(unit, info)| Some((unit, serde_json::from_str(&info).ok()?))).collect())
    }

    /// How much waits for a subscription, and since when: what comes after its last delivered entry and matches, and what was given
    /// back. Beyond [`COUNTED`] entries it is an estimate.
    fn lag(&self, link: &mut Link, unit: &str, info: &Info) -> Result<SubscriptionLag, BackendError> {
        let mut lag = SubscriptionLag::default();
        (lag.group, lag.name, lag.pattern) = (info.group.clone(), info.name.clone(), info.pattern.clone());
        lag.instance = Some(info.instance.clone()).filter(|instance| !instance.is_empty());
        let Ok(pattern) = Pattern::parse(&info.pattern) else { return Ok(lag) };
        let mut oldest: Option<SystemTime> = None;
        let mut see = |event: &Event| oldest = Some(oldest.map_or(event.created_at(), |at| at.min(event.created_at())));
        let again = (self.database.key(&format!("again:{unit}")), false);
        let streams = self.database.streams.iter().map(|stream| (stream.clone(), true));
        for (key, is_main) in streams.chain([again]) {
            let Some(last) = last_delivered(link, &key, unit)? else { continue };
            let mut from = format!("({last}");
            for _ in 0..COUNTED / STEP {
                let answer: Value = link
                    .call(|it| redis::cmd("XRANGE").arg(&key).arg(&from).arg("+").arg("COUNT").arg(STEP).query(it))?;
                let found = entries(answer)?;
                let events = found.iter().filter_map(|(_, fields)| event_of(fields).ok());
                for event in events.filter(|event| !is_main || pattern.matches(event.event_type().as_str())) {
                    lag.ready += 1;
                    see(&event);
                }
                match found.last() {
                    Some((name, _)) if found.len() == STEP => from = format!("({name}"),
                    _ => break,
                }
            }
            let pending: Value =
                link.call(|it| redis::cmd("XPENDING").arg(&key).arg(unit).arg("-").arg("+").arg(COUNTED).query(it))?;
            for it in list(pending)? {
                let Ok([name, holder, ..]) = <[Value; 4]>::try_from(list(it)?) else { continue };
                if text(holder)? != "~" {
                    lag.leased += 1;
                    continue;
                }
                lag.ready += 1;
                let name = text(name)?;
                let found: Value = link.call(|it| redis::cmd("XRANGE").arg(&key).arg(&name).arg(&name).query(it))?;
                entries(found)?.iter().filter_map(|(_, fields)| event_of(fields).ok()).for_each(|event| see(&event));
            }
        }
        lag.oldest_ready = oldest;
        let later = self.database.key(&format!("later:{unit}"));
        lag.deferred = link.call(|it| redis::cmd("ZCARD").arg(later).query(it))?;
        Ok(lag)
    }

    /// Runs a script on letters of this group.
    fn on_letters(&self, script: &Script, dead_letters: &[u64]) -> Result<Value, BackendError> {
        let numbers: Vec<String> = dead_letters.iter().map(u64::to_string).collect();
        let mut arguments: Vec<&[u8]> = vec![self.database.group.as_bytes()];
        arguments.extend(numbers.iter().map(String::as_bytes));
        self.link.lock().run(script, &arguments)
    }

    fn place_of(&self, link: &mut Link, id: Option<&EventId>) -> Result<Option<(usize, String)>, BackendError> {
        let Some(id) = id else { return Ok(None) };
        match store::find(link, id)? {
            Some((number, entry, _)) => Ok(Some((number, entry))),
            None => Err(BackendError::Refused(format!("the event {id} is not held"))),
        }
    }
}

/// The last entry that was delivered of a group, if it is there.
fn last_delivered(link: &mut Link, key: &str, unit: &str) -> Result<Option<String>, BackendError> {
    let groups: Value = match link.call(|it| redis::cmd("XINFO").arg("GROUPS").arg(key).query(it)) {
        Err(error) if error.to_string().contains("no such key") => return Ok(None),
        groups => groups?,
    };
    Ok(Group::all(groups)?.into_iter().find(|group| group.name == unit).map(|group| group.last))
}

fn dead_letter(number: u64, text: &str) -> Option<DeadLetter> {
    let stored: Letter = serde_json::from_str(text).ok()?;
    let event = from_json(stored.event.as_bytes()).ok()?;
    let event = event.with_progress(
        eventbroker::Status::Failed,
        stored.attempts.saturating_sub(1),
        None,
        None,
        stored.errors.last().map(|(_, _, message)| message.clone()),
    );
    let mut letter = DeadLetter::new(number, event, stored.name, stored.reason.parse().ok()?);
    letter.attempts = stored.attempts;
    letter.dead_at = stored.dead_at.into();
    letter.errors = from_stored(stored.errors);
    letter.first_failed_at = letter.errors.first().map_or(letter.dead_at, |first| first.at);
    letter.requeues = stored.requeues;
    Some(letter)
}

impl Operator for RedisOperator {
    fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, BackendError> {
        let (mut link, key) = (self.link.lock(), self.letters_key());
        let (mut found, mut after) = (Vec::new(), filter.after.unwrap_or(0));
        loop {
            let numbers: Vec<u64> = link.call(|it| {
                let mut range = redis::cmd("ZRANGEBYSCORE");
                range.arg(&key).arg(format!("({after}")).arg("+inf").arg("LIMIT").arg(0).arg(STEP).query(it)
            })?;
            let Some(last) = numbers.last() else { return Ok(found) };
            after = *last;
            let letters: Vec<Option<String>> =
                link.call(|it| redis::cmd("HMGET").arg(self.database.key("letters")).arg(&numbers).query(it))?;
            for (number, letter) in numbers.iter().zip(letters) {
                let letter = letter.and_then(|text| dead_letter(*number, &text));
                found.extend(letter.filter(|letter| filter.matches(letter)));
                if found.len() >= filter.effective_limit() {
                    return Ok(found);
                }
            }
        }
    }

    fn requeue(&self, dead_letters: &[u64]) -> Result<Vec<u64>, BackendError> {
        let done = texts(self.on_letters(&scripts::REDELIVER, dead_letters)?)?;
        Ok(done.iter().filter_map(|number| number.parse().ok()).collect())
    }

    fn purge(&self, dead_letters: &[u64]) -> Result<u64, BackendError> {
        let purged = number(self.on_letters(&scripts::PURGE_DEAD_LETTERS, dead_letters)?)?;
        Ok(purged.try_into().unwrap_or(0))
    }

    fn replay(&self, replay: &Replay, dry_run: bool) -> Result<Replayed, BackendError> {
        let mut link = self.link.lock();
        let own = self.database.served.lock().get(&*replay.subscription).map(|served| served.unit.to_string());
        let unit = own.unwrap_or_else(|| self.database.unit(&replay.subscription, ""));
        let known = self.subscriptions(&mut link)?;
        let Some((_, info)) = known.into_iter().find(|(of, _)| *of == unit) else {
            let (name, group) = (&replay.subscription, &self.database.group);
            return Err(BackendError::Refused(format!("there is no subscription {name:?} in the group {group:?}")));
        };
        let after = self.place_of(&mut link, replay.after.as_ref())?;
        let until = self.place_of(&mut link, replay.until.as_ref())?;
        let mut walk = Walk::new(&self.database, Order::OldestFirst, "-", "+");
        if let Some((number, entry)) = &after {
            walk = walk.behind(&self.database, &mut link, *number, entry)?;
        }
        for (stream, range) in self.database.streams.iter().zip(&mut walk.ranges) {
            // What comes after the last delivered entry is open.
            range.to = last_delivered(&mut link, stream, &unit)?.unwrap_or_else(|| "0-0".to_owned());
        }
        if let Some((number, entry)) = &until {
            let places = places_at(&self.database, &mut link, Order::OldestFirst, *number, entry)?;
            for (range, place) in walk.ranges.iter_mut().zip(places) {
                range.to = earliest(mem::take(&mut range.to), place);
            }
        }
        let own = Pattern::parse(&info.pattern).ok();
        let matches = |event: &Event| {
            let event_type = event.event_type().as_str();
            own.iter().chain(&replay.event_type).all(|pattern| pattern.matches(event_type))
                && replay.from.is_none_or(|from| event.created_at() >= from)
                && replay.to.is_none_or(|to| event.created_at() <= to)
        };
        let (mut done, mut last_id, mut more) = (0, None, true);
        while done < replay.limit && more {
            let step = walk.step(&self.database, &mut link)?;
            more = step.more;
            for (number_of, name, event) in step.events.into_iter().filter(|(_, _, event)| matches(event)) {
                let (id, json) = (event.id().to_string(), to_json(&event));
                let flag = if dry_run { "1" } else { "0" };
                let keys = [&*self.database.prefix, &self.database.streams[number_of - 1]];
                let arguments = [&*self.database.group, &unit, flag, &name, &id, &json].map(str::as_bytes);
                if number(link.call(|it| scripts::REPLAY_EVENTS.run(it, &keys, &arguments))?)? > 0 {
                    (done, last_id) = (done + 1, Some(event.id().clone()));
                    if done == replay.limit {
                        break;
                    }
                }
            }
        }
        Ok(Replayed::new(done as u64, last_id.filter(|_| done == replay.limit)))
    }

    fn stats(&self) -> Result<BackEndStats, BackendError> {
        let mut link = self.link.lock();
        let mut stats = BackEndStats::default();
        let key = self.letters_key();
        let newest: Vec<u64> = link.call(|it| redis::cmd("ZREVRANGE").arg(&key).arg(0).arg(0).query(it))?;
        stats.newest_dead_letter = newest.first().copied().unwrap_or(0);
        stats.dead_letters = link.call(|it| redis::cmd("ZCARD").arg(&key).query(it))?;
        let expired: Option<u64> =
            link.call(|it| redis::cmd("HGET").arg(self.database.key("expired")).arg("subscriptions").query(it))?;
        stats.subscriptions_expired = expired.unwrap_or(0);
        let expired: Option<u64> =
            link.call(|it| redis::cmd("HGET").arg(self.database.key("expired")).arg("dead_letters").query(it))?;
        stats.dead_letters_expired = expired.unwrap_or(0);
        for stream in &self.database.streams {
            let key = format!("{stream}:lost");
            let (entries, unknown): (Option<u64>, Option<u64>) =
                link.call(|it| redis::cmd("HMGET").arg(key).arg(&["entries", "unknown"]).query(it))?;
            stats.entries_lost += entries.unwrap_or(0);
            stats.losses_unknown += unknown.unwrap_or(0);
        }
        for (unit, info) in self.subscriptions(&mut link)? {
            let mut lag = self.lag(&mut link, &unit, &info)?;
            let at = self.database.key(&format!("letters:at:{unit}"));
            lag.dead = link.call(|it| redis::cmd("HLEN").arg(at).query(it))?;
            stats.subscriptions.push(lag);
        }
        stats.subscriptions.sort_by(|a, b| (&a.group, &a.name, &a.instance).cmp(&(&b.group, &b.name, &b.instance)));
        Ok(stats)
    }

    fn tail(&self, pattern: &Pattern, start: &StartPosition) -> Result<Box<dyn Tail>, BackendError> {
        Ok(Box::new(RedisTail::new(&self.database, pattern, start)?))
    }
}

impl fmt::Debug for RedisOperator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisOperator").field(&self.database).finish()
    }
}
