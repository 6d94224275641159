//! The requests of operators: dead letters, replays, statistics, and streams of events.

use std::mem;
use std::sync::Arc;

use eventbroker::dead_letter::{DeadLetter, DeadLetterFilter};
use eventbroker::provider::{BackendError, Operator, Replay, Replayed, Tail};
use eventbroker::query::Order;
use eventbroker::stats::BackEndStats;
use eventbroker::{Event, EventId, Pattern, StartPosition};
use eventbroker_bridge_kit::dead_letter::StoredDeadLetter;
use parking_lot::Mutex;
use redis::FromRedisValue;

use super::lag::lag;
use super::tail::RedisTail;
use crate::scripts::{
    Client, Layout, MergeScan, PURGE_DEAD_LETTERS, REDELIVER, REPLAY_EVENTS, Script, earliest, entries_at, flag,
    last_delivered, locate, to_json,
};
use crate::settings::Redis;
use crate::subscriptions::{LocalSubscriptions, SubscriptionRecord, xgroup_name};
use crate::transport::Server;

/// Dead letters of one read.
const STEP: usize = 500;

pub(crate) struct RedisOperator {
    settings: Arc<Redis>,
    layout: Arc<Layout>,
    local: Arc<LocalSubscriptions>,
    /// For the connections of streams.
    server: Arc<Server>,
    client: Mutex<Client>,
}

impl RedisOperator {
    pub(crate) fn new(
        settings: Arc<Redis>,
        layout: Arc<Layout>,
        local: Arc<LocalSubscriptions>,
        server: Arc<Server>,
    ) -> Self {
        let client = Mutex::new(Client::new(&server, &layout));
        Self { settings, layout, local, server, client }
    }

    fn letters_key(&self) -> String {
        self.layout.key_of("letters:of", &self.settings.consumer_group)
    }

    /// The record of every subscription, by its consumer group.
    fn records(&self, client: &mut Client) -> Result<Vec<(String, SubscriptionRecord)>, BackendError> {
        let key = self.layout.key("subscriptions");
        let records: Vec<(String, String)> = client.query(redis::cmd("HGETALL").arg(key))?;
        let parsed = |(xgroup, record): (String, String)| Some((xgroup, serde_json::from_str(&record).ok()?));
        Ok(records.into_iter().filter_map(parsed).collect())
    }

    /// Runs a script on dead letters of this group.
    fn run_on_letters<T: FromRedisValue>(&self, script: &Script, dead_letters: &[u64]) -> Result<T, BackendError> {
        let mut arguments = vec![self.settings.consumer_group.clone()];
        arguments.extend(dead_letters.iter().map(u64::to_string));
        self.client.lock().run(script, &arguments)
    }

    /// The number of the stream and the entry of an event that bounds a replay.
    fn bound(&self, client: &mut Client, id: Option<&EventId>) -> Result<Option<(usize, String)>, BackendError> {
        let Some(id) = id else { return Ok(None) };
        match locate(client, id)? {
            Some((number, entry, _)) => Ok(Some((number, entry))),
            None => Err(BackendError::Refused(format!("the event {id} is not held"))),
        }
    }
}

fn dead_letter(number: u64, text: &str) -> Option<DeadLetter> {
    serde_json::from_str::<StoredDeadLetter>(text).ok()?.into_dead_letter(number)
}

impl Operator for RedisOperator {
    fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, BackendError> {
        let (mut client, key) = (self.client.lock(), self.letters_key());
        let (mut found, mut after) = (Vec::new(), filter.after.unwrap_or(0));
        loop {
            let mut range = redis::cmd("ZRANGEBYSCORE");
            range.arg(&key).arg(format!("({after}")).arg("+inf").arg("LIMIT").arg(0).arg(STEP);
            let numbers: Vec<u64> = client.query(&range)?;
            let Some(last) = numbers.last() else { return Ok(found) };
            after = *last;
            let letters: Vec<Option<String>> =
                client.query(redis::cmd("HMGET").arg(self.layout.key("letters")).arg(&numbers))?;
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
        self.run_on_letters(&REDELIVER, dead_letters)
    }

    fn purge(&self, dead_letters: &[u64]) -> Result<u64, BackendError> {
        self.run_on_letters(&PURGE_DEAD_LETTERS, dead_letters)
    }

    fn replay(&self, replay: &Replay, dry_run: bool) -> Result<Replayed, BackendError> {
        let (layout, mut client, group) = (&self.layout, self.client.lock(), &self.settings.consumer_group);
        let local = self.local.get(&replay.subscription).map(|it| it.xgroup.to_string());
        let xgroup = local.unwrap_or_else(|| xgroup_name(group, &replay.subscription, ""));
        let Some((_, record)) = self.records(&mut client)?.into_iter().find(|(of, _)| *of == xgroup) else {
            let name = &replay.subscription;
            return Err(BackendError::Refused(format!("there is no subscription {name:?} in the group {group:?}")));
        };
        let after = self.bound(&mut client, replay.after.as_ref())?;
        let until = self.bound(&mut client, replay.until.as_ref())?;
        let mut scan = MergeScan::new(layout, Order::OldestFirst, "-", "+");
        if let Some((number, entry)) = &after {
            scan = scan.skip_to(&mut client, *number, entry)?;
        }
        for (stream, range) in layout.streams.iter().zip(&mut scan.ranges) {
            // Later entries are unread, and so their deliveries are open.
            range.to = last_delivered(&mut client, stream, &xgroup)?.unwrap_or_else(|| "0-0".to_owned());
        }
        if let Some((number, entry)) = &until {
            let places = entries_at(&mut client, Order::OldestFirst, *number, entry)?;
            for (range, place) in scan.ranges.iter_mut().zip(places) {
                range.to = earliest(mem::take(&mut range.to), place);
            }
        }
        let own = Pattern::parse(&record.pattern).ok();
        let matches = |event: &Event| {
            let event_type = event.event_type().as_str();
            own.iter().chain(&replay.event_type).all(|pattern| pattern.matches(event_type))
                && replay.from.is_none_or(|from| event.created_at() >= from)
                && replay.to.is_none_or(|to| event.created_at() <= to)
        };
        let (mut done, mut last_id, mut more) = (0, None, true);
        while done < replay.limit && more {
            let step = scan.step(&mut client)?;
            more = step.more;
            for (at, entry, event) in step.events.into_iter().filter(|(_, _, event)| matches(event)) {
                let (id, json) = (event.id().to_string(), to_json(&event));
                let keys = [&*layout.prefix, &layout.streams[at - 1]];
                let arguments = [&**group, &xgroup, flag(dry_run), &entry, &id, &json];
                if client.run_on(&REPLAY_EVENTS, &keys, &arguments)? {
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
        let (layout, mut client) = (&self.layout, self.client.lock());
        let mut stats = BackEndStats::default();
        let key = self.letters_key();
        let newest: Vec<u64> = client.query(redis::cmd("ZREVRANGE").arg(&key).arg(0).arg(0))?;
        stats.newest_dead_letter = newest.first().copied().unwrap_or(0);
        stats.dead_letters = client.query(redis::cmd("ZCARD").arg(&key))?;
        let mut counts = |key: String, fields: [&str; 2]| -> Result<(u64, u64), BackendError> {
            let (one, other): (Option<u64>, Option<u64>) = client.query(redis::cmd("HMGET").arg(key).arg(&fields))?;
            Ok((one.unwrap_or(0), other.unwrap_or(0)))
        };
        (stats.subscriptions_expired, stats.dead_letters_expired) =
            counts(layout.key("expired"), ["subscriptions", "dead_letters"])?;
        for stream in &layout.streams {
            let (entries, unknown) = counts(format!("{stream}:lost"), ["entries", "unknown"])?;
            stats.entries_lost += entries;
            stats.losses_unknown += unknown;
        }
        for (xgroup, record) in self.records(&mut client)? {
            stats.subscriptions.push(lag(&mut client, &xgroup, &record)?);
        }
        stats.subscriptions.sort_by(|a, b| (&a.group, &a.name, &a.instance).cmp(&(&b.group, &b.name, &b.instance)));
        Ok(stats)
    }

    fn tail(&self, pattern: &Pattern, start: &StartPosition) -> Result<Box<dyn Tail>, BackendError> {
        Ok(Box::new(RedisTail::new(Client::new(&self.server, &self.layout), pattern, start)?))
    }
}
