//! Answers operators: dead letters, replays, the lag of the subscriptions, and tails.

use std::sync::Arc;

use eventbroker::dead_letter::{DeadLetter, DeadLetterFilter};
use eventbroker::provider::{self, BackendError, Replay, Replayed};
use eventbroker::stats::BackEndStats;
use eventbroker::{EventId, Pattern, StartPosition};
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};

use super::tail::Tail;
use crate::columns::{ReadRow, dead_letter, id, lag};
use crate::member::Member;
use crate::notify::Notify;
use crate::settings::OpenError;
use crate::sqlite::statements::{Select, Tables, execute};
use crate::sqlite::transport::{Reader, Sync};

/// Answers operators.
pub(crate) struct Operator {
    tables: Arc<Tables>,
    member: Arc<Member>,
    notify: Arc<Notify>,
    reader: Reader,
}

/// The subscription and the events of a replay. An error says why it is refused.
type Found = Result<(i64, Vec<(i64, EventId)>), String>;

impl Operator {
    pub(crate) fn new(tables: Arc<Tables>, member: Arc<Member>, notify: Arc<Notify>) -> Result<Self, OpenError> {
        Ok(Self { reader: tables.file.reader()?, tables, member, notify })
    }

    /// Finds the events of a replay, oldest first.
    fn find(&self, reader: &Connection, replay: &Replay) -> rusqlite::Result<Found> {
        let (sql, name, group) = (&self.tables.sql, &replay.subscription, &self.member.settings.consumer_group);
        let instance = self.member.subscriptions.instance_of(name).unwrap_or_default();
        let known: Option<(i64, String)> = reader
            .prepare_cached(&sql.subscription)?
            .query_row(params![group, name, instance], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let Some((subscription, pattern)) = known else {
            return Ok(Err(format!("there is no subscription {name:?} in the group {group:?}")));
        };
        let mut select = Select::with_condition(&sql.replayable, vec![Value::Integer(subscription)]);
        for (condition, id) in [("e.position >", &replay.after), ("e.position <=", &replay.until)] {
            let Some(id) = id else { continue };
            let Some(position) = self.tables.position(reader, id)? else {
                return Ok(Err(format!("the event {id} is not held")));
            };
            select.and_number(condition, Some(position));
        }
        select.filter_replay(replay, &pattern);
        let found = select.read(reader, |row| Ok((row.get(0)?, id(row, 1)?)))?;
        Ok(Ok((subscription, found)))
    }

    /// Opens the status of an event again if it depends on the delivery.
    fn reopen(&self, transaction: &Transaction<'_>, position: i64, counts: bool) -> rusqlite::Result<()> {
        if counts {
            execute(transaction, &self.tables.sql.reopen_event, [position])?;
        }
        Ok(())
    }
}

impl provider::Operator for Operator {
    fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, BackendError> {
        let group = Value::Text(self.member.settings.consumer_group.clone());
        let mut select = Select::with_condition(&self.tables.sql.dead_letters, vec![group]);
        select.filter_dead_letters(filter);
        self.reader.read(|reader| select.read(reader, |row| Ok(dead_letter(row)?)))
    }

    fn requeue(&self, dead_letters: &[u64]) -> Result<Vec<u64>, BackendError> {
        let requeued = self.tables.file.write(Sync::Full, |transaction| {
            let mut requeued = Vec::new();
            let mut requeue = transaction.prepare_cached(&self.tables.sql.requeue)?;
            for number in dead_letters {
                let values = params![self.member.settings.consumer_group, *number as i64];
                let row = requeue.query_row(values, |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
                if let Some((position, counts)) = row {
                    self.reopen(transaction, position, counts)?;
                    requeued.push(*number);
                }
            }
            Ok(requeued)
        })?;
        self.notify.stored();
        Ok(requeued)
    }

    fn purge(&self, dead_letters: &[u64]) -> Result<u64, BackendError> {
        self.tables.file.write(Sync::Later, |transaction| {
            let mut purge = transaction.prepare_cached(&self.tables.sql.purge)?;
            let group = &self.member.settings.consumer_group;
            let purged = dead_letters.iter().map(|number| purge.execute(params![group, *number as i64]));
            purged.sum::<rusqlite::Result<usize>>().map(|purged| purged as u64)
        })
    }

    fn replay(&self, replay: &Replay, dry_run: bool) -> Result<Replayed, BackendError> {
        let found = if dry_run {
            self.reader.read(|reader| self.find(reader, replay))?
        } else {
            self.tables.file.write(Sync::Full, |transaction| {
                let found = self.find(transaction, replay)?;
                if let Ok((subscription, events)) = &found {
                    let mut deliver = transaction.prepare_cached(&self.tables.sql.replay)?;
                    for (position, _) in events {
                        let counts = deliver.query_row(params![position, subscription], |row| row.get(0))?;
                        self.reopen(transaction, *position, counts)?;
                    }
                }
                Ok(found)
            })?
        };
        let (_, events) = found.map_err(BackendError::Refused)?;
        self.notify.stored();
        let next = events.last().filter(|_| events.len() == replay.limit).map(|(_, id)| id.clone());
        Ok(Replayed::new(events.len() as u64, next))
    }

    fn stats(&self) -> Result<BackEndStats, BackendError> {
        let sql = &self.tables.sql;
        self.reader.read(|reader| {
            // All figures are of one moment.
            let reader = reader.unchecked_transaction()?;
            let counter = |name: &str| -> rusqlite::Result<u64> {
                let count = reader.prepare_cached(&sql.counter)?.query_row([name], |row| row.get::<_, i64>(0));
                Ok(count.optional()?.unwrap_or(0) as u64)
            };
            let mut stats = BackEndStats::default();
            let totals = |row: &Row<'_>| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64));
            (stats.dead_letters, stats.newest_dead_letter) = reader
                .prepare_cached(&sql.count_dead_letters)?
                .query_row([&self.member.settings.consumer_group], totals)?;
            stats.dead_letters_expired = counter("dead_letters_expired")?;
            stats.subscriptions_expired = counter("subscriptions_expired")?;
            stats.subscriptions = reader
                .prepare_cached(&sql.lag)?
                .query_map([], |row| Ok(lag(row, row.time(7)?)?))?
                .collect::<Result<_, _>>()?;
            Ok(stats)
        })
    }

    fn tail(&self, pattern: &Pattern, start: &StartPosition) -> Result<Box<dyn provider::Tail>, BackendError> {
        Ok(Box::new(Tail::new(self.tables.clone(), pattern, start)?))
    }
}
