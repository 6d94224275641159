//! Answers operators: dead letters, replays, the lag of the subscriptions, and tails.

use std::sync::Arc;
use std::time::Duration;

use eventbroker::dead_letter::{DeadLetter, DeadLetterFilter};
use eventbroker::provider::{self, BackendError, Replay, Replayed};
use eventbroker::stats::BackEndStats;
use eventbroker::{Pattern, StartPosition};
use postgres::Error;

use super::tail::Tail;
use crate::columns::{dead_letter, lag};
use crate::member::Member;
use crate::postgres::statements::{Select, Statements, Tables, exact_time, unreadable};
use crate::postgres::transport::{Notifier, Session};

/// Answers operators.
pub(crate) struct Operator {
    pub(crate) tables: Tables,
    pub(crate) member: Arc<Member>,
    pub(crate) notifier: Arc<Notifier>,
}

/// The subscription and the events of a replay: their positions and ids. An error says why the replay is refused.
type Found = Result<(i64, Vec<(i64, String)>), String>;

/// Finds the events of a replay, oldest first.
fn find(session: &mut Session, sql: &Statements, group: &str, instance: &str, replay: &Replay) -> Result<Found, Error> {
    let known = session.query(&sql.subscription, &[&group, &replay.subscription, &instance])?;
    let Some(known) = known.first() else {
        return Ok(Err(format!("there is no subscription {:?} in the group {group:?}", replay.subscription)));
    };
    let (subscription, pattern): (i64, String) = (known.try_get(0)?, known.try_get(1)?);
    let mut select = Select::with_condition(&sql.replayable, vec![Box::new(subscription)]);
    for (condition, id) in [("e.position >", &replay.after), ("e.position <=", &replay.until)] {
        let Some(id) = id else { continue };
        let rows = session.query(&sql.position, &[&id.to_string()])?;
        let Some(row) = rows.first() else {
            return Ok(Err(format!("the event {id} is not held")));
        };
        select.and_number(condition, Some(row.try_get::<_, i64>(0)?));
    }
    select.filter_replay(replay, &pattern);
    let found = select.read(session)?;
    let found = found.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<Vec<_>, Error>>()?;
    Ok(Ok((subscription, found)))
}

fn numbers(dead_letters: &[u64]) -> Vec<i64> {
    dead_letters.iter().map(|number| i64::try_from(*number).unwrap_or(i64::MAX)).collect()
}

impl provider::Operator for Operator {
    fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, BackendError> {
        let group = Box::new(self.member.settings.consumer_group.clone());
        let mut select = Select::with_condition(&self.tables.sql.dead_letters, vec![group]);
        select.filter_dead_letters(filter);
        let rows = self.tables.call(move |session, _| select.read(session))?;
        rows.iter().map(|row| dead_letter(row).map_err(unreadable)).collect()
    }

    fn requeue(&self, dead_letters: &[u64]) -> Result<Vec<u64>, BackendError> {
        let (group, numbers) = (self.member.settings.consumer_group.clone(), numbers(dead_letters));
        let requeued = self.tables.call(move |session, sql| {
            let rows = session.query(&sql.requeue, &[&group, &numbers])?;
            rows.iter().map(|row| row.try_get::<_, i64>(0).map(|number| number as u64)).collect::<Result<_, _>>()
        })?;
        self.notifier.stored();
        Ok(requeued)
    }

    fn purge(&self, dead_letters: &[u64]) -> Result<u64, BackendError> {
        let (group, numbers) = (self.member.settings.consumer_group.clone(), numbers(dead_letters));
        self.tables.call(move |session, sql| session.execute(&sql.purge, &[&group, &numbers]))
    }

    fn replay(&self, replay: &Replay, dry_run: bool) -> Result<Replayed, BackendError> {
        let (group, wanted) = (self.member.settings.consumer_group.clone(), replay.clone());
        let instance = self.member.subscriptions.instance_of(&replay.subscription).unwrap_or_default();
        let found = self.tables.call(move |session, sql| {
            session.transaction(|session| {
                let found = find(session, sql, &group, &instance, &wanted)?;
                if let (Ok((subscription, events)), false) = (&found, dry_run) {
                    let positions: Vec<i64> = events.iter().map(|(position, _)| *position).collect();
                    session.query(&sql.replay, &[subscription, &positions])?;
                }
                Ok(found)
            })
        })?;
        let (_, events) = found.map_err(BackendError::Refused)?;
        self.notifier.stored();
        let next = events.last().filter(|_| events.len() == replay.limit).and_then(|(_, id)| id.parse().ok());
        Ok(Replayed::new(events.len() as u64, next))
    }

    fn stats(&self) -> Result<BackEndStats, BackendError> {
        let group = self.member.settings.consumer_group.clone();
        let (mut stats, rows) = self.tables.call(move |session, sql| {
            let mut stats = BackEndStats::default();
            if let Some(row) = session.query(&sql.count_dead_letters, &[&group])?.first() {
                stats.dead_letters = row.try_get::<_, i64>(0)? as u64;
                stats.newest_dead_letter = row.try_get::<_, i64>(1)? as u64;
            }
            let mut counter = |name: &str| -> Result<u64, Error> {
                let rows = session.query(&sql.counter, &[&name])?;
                rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0).map(|count| count as u64))
            };
            stats.dead_letters_expired = counter("dead_letters_expired")?;
            stats.subscriptions_expired = counter("subscriptions_expired")?;
            stats.entries_lost = counter("entries_lost")?;
            if let Some(row) = session.query(&sql.oldest_transaction, &[])?.first() {
                let age = row.try_get::<_, Option<f64>>(0)?;
                stats.oldest_transaction = age.map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
            }
            Ok((stats, session.query(&sql.lag, &[])?))
        })?;
        let subscriptions = rows.iter().map(|row| lag(row, exact_time(row, 7, 8)?)).collect::<Result<_, _>>();
        stats.subscriptions = subscriptions.map_err(unreadable)?;
        Ok(stats)
    }

    fn tail(&self, pattern: &Pattern, start: &StartPosition) -> Result<Box<dyn provider::Tail>, BackendError> {
        Ok(Box::new(Tail::new(self.tables.clone(), self.notifier.clone(), pattern, start)?))
    }
}
