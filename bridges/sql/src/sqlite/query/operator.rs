//! What operators ask for: dead letters, deliveries made again, the lag of the subscriptions, a view of the events as they come
//! (`tail`).

use std::sync::Arc;

use eventbroker::dead_letter::{DeadLetter, DeadLetterFilter};
use eventbroker::provider::{BackendError, Operator, Replay, Replayed, Tail};
use eventbroker::stats::{BackEndStats, SubscriptionLag};
use eventbroker::{EventId, Pattern, StartPosition};
use parking_lot::Mutex;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params, params_from_iter};

use crate::pattern::Form;
use crate::sqlite::OpenError;
use crate::sqlite::query::tail::SqliteTail;
use crate::sqlite::statements::SELECT_LETTER;
use crate::sqlite::statements::pattern::{condition, form};
use crate::sqlite::statements::rows;
use crate::sqlite::transport::connection::{Database, Sync, backend_error};

#[derive(Debug)]
pub(crate) struct SqliteOperator {
    database: Arc<Database>,
    reader: Mutex<Connection>,
}

/// An event that a replay is about: its position and its id.
type Found = (i64, EventId);

impl SqliteOperator {
    pub(crate) fn new(database: &Arc<Database>) -> Result<Self, OpenError> {
        Ok(Self { database: Arc::clone(database), reader: Mutex::new(database.reader()?) })
    }

    fn read<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, BackendError> {
        work(&self.reader.lock()).map_err(|error| backend_error(&error))
    }

    /// The subscription that a replay is about: its id and its pattern.
    fn subscription(&self, reader: &Connection, replay: &Replay) -> rusqlite::Result<Option<(i64, String)>> {
        let database = &*self.database;
        let served = database.served.lock().get(replay.subscription.as_str()).cloned();
        let mut statement = reader.prepare_cached(&database.sql.subscription)?;
        let known = params![database.group, replay.subscription, served.unwrap_or_default()];
        statement.query_row(known, |row| Ok((row.get(0)?, row.get(1)?))).optional()
    }

    /// The events of a replay, oldest first.
    fn find(&self, reader: &Connection, replay: &Replay) -> rusqlite::Result<Result<(i64, Vec<Found>), String>> {
        let database = &*self.database;
        let Some((subscription, pattern)) = self.subscription(reader, replay)? else {
            let (name, group) = (&replay.subscription, &database.group);
            return Ok(Err(format!("there is no subscription {name:?} in the group {group:?}")));
        };
        let mut bounds = [None, None];
        for (bound, id) in bounds.iter_mut().zip([&replay.after, &replay.until]) {
            let Some(id) = id else { continue };
            match database.position(reader, id)? {
                Some(position) => *bound = Some(position),
                None => return Ok(Err(format!("the event {id} is not held"))),
            }
        }
        let mut query = Query::new(format!(
            "SELECT e.position, e.id FROM {events} e LEFT JOIN {events}_deliveries d \
             ON d.position = e.position AND d.subscription = ?1 WHERE coalesce(d.state, 2) > 1",
            events = database.sql.events
        ));
        query.values.push(Value::Integer(subscription));
        query.and_if("e.position >", bounds[0].map(Value::Integer));
        query.and_if("e.position <=", bounds[1].map(Value::Integer));
        query.and_if("e.created_at >=", replay.from.map(|time| Value::Text(rows::time_text(time))));
        query.and_if("e.created_at <=", replay.to.map(|time| Value::Text(rows::time_text(time))));
        // What is in the table was a pattern when it was registered.
        let own = Pattern::parse(&pattern).ok();
        own.iter().chain(&replay.event_type).for_each(|pattern| query.and_matches("e.type", pattern));
        query.text.push_str(" ORDER BY e.position");
        query.limit(replay.limit);
        let mut statement = reader.prepare_cached(&query.text)?;
        let found =
            statement.query_map(params_from_iter(query.values), |row| Ok((row.get(0)?, rows::id_at(row, 1)?)))?;
        Ok(Ok((subscription, found.collect::<rusqlite::Result<Vec<Found>>>()?)))
    }
}

/// A statement that depends on what is asked, with the values in it.
struct Query {
    text: String,
    values: Vec<Value>,
}

impl Query {
    fn new(text: String) -> Self {
        Self { text, values: Vec::new() }
    }

    /// One more condition, if there is a value for it.
    fn and_if(&mut self, condition: &str, value: Option<Value>) {
        if let Some(value) = value {
            self.values.push(value);
            self.text.push_str(&format!(" AND {condition} ?{}", self.values.len()));
        }
    }

    fn and_matches(&mut self, event_type: &str, pattern: &Pattern) {
        self.text.push_str(" AND ");
        self.text.push_str(&matches(event_type, pattern, &mut self.values));
    }

    fn limit(&mut self, limit: usize) {
        self.values.push(Value::Integer(limit as i64));
        self.text.push_str(&format!(" LIMIT ?{}", self.values.len()));
    }
}

/// The condition that a type matches a pattern; its parts go to the values.
pub(crate) fn matches(event_type: &str, pattern: &Pattern, values: &mut Vec<Value>) -> String {
    let Form { final_rest, dots, glob, literals } = form(pattern);
    let first = values.len() + 1;
    values.extend([
        Value::Integer(i64::from(final_rest)),
        Value::Integer(dots as i64),
        Value::Text(glob),
        literals.map_or(Value::Null, Value::Text),
    ]);
    let [rest, dots, glob, literals] = [first, first + 1, first + 2, first + 3];
    format!(
        "EXISTS (SELECT 1 FROM (SELECT ?{rest} AS final_rest, ?{dots} AS dots, ?{glob} AS glob, ?{literals} AS literals) s \
         WHERE {})",
        condition(event_type)
    )
}

impl Database {
    pub(crate) fn position(&self, reader: &Connection, id: &EventId) -> rusqlite::Result<Option<i64>> {
        reader.prepare_cached(&self.sql.position)?.query_row([id.to_string()], |row| row.get(0)).optional()
    }

    pub(crate) fn last_position(&self, reader: &Connection) -> rusqlite::Result<i64> {
        reader.prepare_cached(&self.sql.last_position)?.query_row([], |row| row.get(0))
    }

    /// Makes the status of an event open again, if it depends on the delivery that is made again.
    fn reopen(&self, transaction: &Transaction<'_>, position: i64, counts: bool) -> rusqlite::Result<()> {
        if counts {
            transaction.prepare_cached(&self.sql.reopen)?.execute([position])?;
        }
        Ok(())
    }
}

fn lag(row: &Row<'_>) -> rusqlite::Result<SubscriptionLag> {
    let mut lag = SubscriptionLag::default();
    (lag.group, lag.name, lag.pattern) = (row.get(0)?, row.get(1)?, row.get(3)?);
    lag.instance = Some(row.get::<_, String>(2)?).filter(|instance| !instance.is_empty());
    let count = |column: usize| row.get::<_, i64>(column).map(|count| count as u64);
    (lag.ready, lag.leased, lag.dead) = (count(4)?, count(5)?, count(6)?);
    lag.oldest_ready = rows::time(row, 7)?;
    Ok(lag)
}

impl Operator for SqliteOperator {
    fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, BackendError> {
        let database = &*self.database;
        let mut query = Query::new(SELECT_LETTER.replace("{events}", &database.sql.events));
        query.values.push(Value::Text(database.group.clone()));
        query.and_if("d.dead_letter >", filter.after.map(|after| Value::Integer(after as i64)));
        query.and_if("s.name =", filter.name.clone().map(Value::Text));
        query.and_if("d.reason =", filter.reason.map(|reason| Value::Text(reason.as_str().to_owned())));
        query.and_if("e.id =", filter.event_id.as_ref().map(|id| Value::Text(id.to_string())));
        filter.event_type.iter().for_each(|pattern| query.and_matches("e.type", pattern));
        query.text.push_str(" ORDER BY d.dead_letter");
        query.limit(filter.effective_limit());
        self.read(|reader| {
            let mut statement = reader.prepare_cached(&query.text)?;
            statement.query_map(params_from_iter(query.values), rows::dead_letter)?.collect()
        })
    }

    fn requeue(&self, dead_letters: &[u64]) -> Result<Vec<u64>, BackendError> {
        let database = &*self.database;
        let requeued = database.write(Sync::Full, |transaction| {
            let mut requeued = Vec::new();
            for number in dead_letters {
                let mut requeue = transaction.prepare_cached(&database.sql.requeue)?;
                let found: Option<(i64, bool)> = requeue
                    .query_row(params![database.group, *number as i64], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?;
                if let Some((position, counts)) = found {
                    database.reopen(transaction, position, counts)?;
                    requeued.push(*number);
                }
            }
            Ok(requeued)
        })?;
        database.bell.stored();
        Ok(requeued)
    }

    fn purge(&self, dead_letters: &[u64]) -> Result<u64, BackendError> {
        let database = &*self.database;
        database.write(Sync::Later, |transaction| {
            let mut purge = transaction.prepare_cached(&database.sql.purge)?;
            let purged = dead_letters.iter().map(|number| purge.execute(params![database.group, *number as i64]));
            purged.sum::<rusqlite::Result<usize>>().map(|purged| purged as u64)
        })
    }

    fn replay(&self, replay: &Replay, dry_run: bool) -> Result<Replayed, BackendError> {
        let database = &*self.database;
        let found = if dry_run {
            self.read(|reader| self.find(reader, replay))?
        } else {
            database.write(Sync::Full, |transaction| {
                let found = self.find(transaction, replay)?;
                if let Ok((subscription, events)) = &found {
                    let mut again = transaction.prepare_cached(&database.sql.replay)?;
                    for (position, _) in events {
                        let counts = again.query_row(params![position, subscription], |row| row.get(0))?;
                        database.reopen(transaction, *position, counts)?;
                    }
                }
                Ok(found)
            })?
        };
        let (_, events) = found.map_err(BackendError::Refused)?;
        database.bell.stored();
        let next = events.last().filter(|_| events.len() == replay.limit).map(|(_, id)| id.clone());
        Ok(Replayed::new(events.len() as u64, next))
    }

    fn stats(&self) -> Result<BackEndStats, BackendError> {
        let sql = &self.database.sql;
        self.read(|reader| {
            // All of it at one moment.
            let reader = reader.unchecked_transaction()?;
            let counted = |name: &str| -> rusqlite::Result<u64> {
                let count =
                    reader.prepare_cached(&sql.counted)?.query_row([name], |row| row.get::<_, i64>(0)).optional();
                Ok(count?.unwrap_or(0) as u64)
            };
            let mut stats = BackEndStats::default();
            let totals = |row: &Row<'_>| Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64));
            (stats.dead_letters, stats.newest_dead_letter) =
                reader.prepare_cached(&sql.dead)?.query_row([&self.database.group], totals)?;
            stats.dead_letters_expired = counted("dead_letters_expired")?;
            stats.subscriptions_expired = counted("subscriptions_expired")?;
            stats.subscriptions = reader.prepare_cached(&sql.lag)?.query_map([], lag)?.collect::<Result<_, _>>()?;
            Ok(stats)
        })
    }

    fn tail(&self, pattern: &Pattern, start: &StartPosition) -> Result<Box<dyn Tail>, BackendError> {
        Ok(Box::new(SqliteTail::new(&self.database, pattern, start)?))
    }
}
