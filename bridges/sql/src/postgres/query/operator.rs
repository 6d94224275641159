//! What operators ask for: dead letters, deliveries made again, the lag of the subscriptions, a view of the events as they come
//! (`tail`).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eventbroker::dead_letter::{DeadLetter, DeadLetterFilter};
use eventbroker::provider::{BackendError, Operator, Replay, Replayed, Tail};
use eventbroker::stats::{BackEndStats, SubscriptionLag};
use eventbroker::{Pattern, StartPosition};
use postgres::{Error, Row};

use crate::postgres::query::tail::PostgresTail;
use crate::postgres::statements::rows;
use crate::postgres::statements::select::Query;
use crate::postgres::statements::{SELECT_LETTER, Statements};
use crate::postgres::transport::connection::{Database, unreadable};
use crate::postgres::transport::link::Session;

#[derive(Debug)]
pub(crate) struct PostgresOperator(Arc<Database>);

/// Positions and ids of the events that a replay is about, and its subscription; or why there is no such replay.
type Found = Result<(i64, Vec<(i64, String)>), String>;

impl PostgresOperator {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self(Arc::clone(database))
    }
}

/// The events of a replay, oldest first.
fn find(session: &mut Session, sql: &Statements, group: &str, instance: &str, replay: &Replay) -> Result<Found, Error> {
    let known = session.query(&sql.subscription, &[&group, &replay.subscription, &instance])?;
    let Some(known) = known.first() else {
        return Ok(Err(format!("there is no subscription {:?} in the group {group:?}", replay.subscription)));
    };
    let (subscription, pattern): (i64, String) = (known.try_get(0)?, known.try_get(1)?);
    let mut bounds = [None, None];
    for (bound, id) in bounds.iter_mut().zip([&replay.after, &replay.until]) {
        let Some(id) = id else { continue };
        match session.query(&sql.position, &[&id.to_string()])?.first() {
            Some(row) => *bound = Some(row.try_get::<_, i64>(0)?),
            None => return Ok(Err(format!("the event {id} is not held"))),
        }
    }
    let mut query = Query::new(
        format!(
            "SELECT e.position, e.id FROM {events} e LEFT JOIN LATERAL (SELECT d.state FROM {events}_deliveries d \
             WHERE d.position = e.position AND d.subscription = $1 OFFSET 0) d ON true WHERE coalesce(d.state, 2) > 1",
            events = sql.events
        ),
        vec![Box::new(subscription)],
    );
    query.and_if("e.position >", bounds[0]);
    query.and_if("e.position <=", bounds[1]);
    query.and_created(">=", replay.from);
    query.and_created("<=", replay.to);
    // What is in the table was a pattern when it was registered.
    let own = Pattern::parse(&pattern).ok();
    own.iter().chain(&replay.event_type).for_each(|pattern| query.and_matches(pattern));
    query.text.push_str(" ORDER BY e.position");
    query.limit(replay.limit);
    let found = session.query(&query.text, &query.values())?;
    let found = found.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<Vec<_>, Error>>()?;
    Ok(Ok((subscription, found)))
}

fn lag(row: &Row) -> Result<SubscriptionLag, Error> {
    let mut lag = SubscriptionLag::default();
    (lag.group, lag.name, lag.pattern) = (row.try_get(0)?, row.try_get(1)?, row.try_get(3)?);
    lag.instance = Some(row.try_get::<_, String>(2)?).filter(|instance| !instance.is_empty());
    let count = |column: usize| row.try_get::<_, i64>(column).map(|count| count as u64);
    (lag.ready, lag.leased, lag.dead) = (count(4)?, count(5)?, count(6)?);
    let nanos = row.try_get::<_, Option<i16>>(8)?.unwrap_or(0);
    let oldest: Option<SystemTime> = row.try_get(7)?;
    lag.oldest_ready = oldest.map(|time| time + Duration::from_nanos(nanos.try_into().unwrap_or(0)));
    Ok(lag)
}

fn number(numbers: &[u64]) -> Vec<i64> {
    numbers.iter().map(|number| i64::try_from(*number).unwrap_or(i64::MAX)).collect()
}

impl Operator for PostgresOperator {
    fn dead_letters(&self, filter: &DeadLetterFilter) -> Result<Vec<DeadLetter>, BackendError> {
        let database = &*self.0;
        let select = SELECT_LETTER.replace("{events}", &database.sql.events);
        let mut query = Query::new(select, vec![Box::new(database.group.clone())]);
        query.and_if("d.dead_letter >", filter.after.map(|after| i64::try_from(after).unwrap_or(i64::MAX)));
        query.and_if("s.name =", filter.name.clone());
        query.and_if("d.reason =", filter.reason.map(|reason| reason.as_str()));
        query.and_if("e.id =", filter.event_id.as_ref().map(ToString::to_string));
        filter.event_type.iter().for_each(|pattern| query.and_matches(pattern));
        query.text.push_str(" ORDER BY d.dead_letter");
        query.limit(filter.effective_limit());
        let rows = database.lookups.call(move |session| session.query(&query.text, &query.values()))?;
        rows.iter().map(|row| rows::dead_letter(row).map_err(|error| unreadable(&error))).collect()
    }

    fn requeue(&self, dead_letters: &[u64]) -> Result<Vec<u64>, BackendError> {
        let database = &*self.0;
        let (sql, group, numbers) = (Arc::clone(&database.sql), database.group.clone(), number(dead_letters));
        let requeued = database.lookups.call(move |session| {
            let rows = session.query(&sql.requeue, &[&group, &numbers])?;
            rows.iter().map(|row| row.try_get::<_, i64>(0).map(|number| number as u64)).collect::<Result<_, _>>()
        })?;
        database.stored();
        Ok(requeued)
    }

    fn purge(&self, dead_letters: &[u64]) -> Result<u64, BackendError> {
        let database = &*self.0;
        let (sql, group, numbers) = (Arc::clone(&database.sql), database.group.clone(), number(dead_letters));
        database.lookups.call(move |session| session.execute(&sql.purge, &[&group, &numbers]))
    }

    fn replay(&self, replay: &Replay, dry_run: bool) -> Result<Replayed, BackendError> {
        let database = &*self.0;
        let (sql, group, wanted) = (Arc::clone(&database.sql), database.group.clone(), replay.clone());
        let instance = database.served.lock().get(replay.subscription.as_str()).cloned().unwrap_or_default();
        let found = database.lookups.call(move |session| {
            session.transaction(|session| {
                let found = find(session, &sql, &group, &instance, &wanted)?;
                if let (Ok((subscription, events)), false) = (&found, dry_run) {
                    let positions: Vec<i64> = events.iter().map(|(position, _)| *position).collect();
                    session.query(&sql.replay, &[subscription, &positions])?;
                }
                Ok(found)
            })
        })?;
        let (_, events) = found.map_err(BackendError::Refused)?;
        database.stored();
        let next = events.last().filter(|_| events.len() == replay.limit).and_then(|(_, id)| id.parse().ok());
        Ok(Replayed::new(events.len() as u64, next))
    }

    fn stats(&self) -> Result<BackEndStats, BackendError> {
        let database = &*self.0;
        let (sql, group) = (Arc::clone(&database.sql), database.group.clone());
        database.lookups.call(move |session| {
            let mut stats = BackEndStats::default();
            if let Some(row) = session.query(&sql.dead, &[&group])?.first() {
                stats.dead_letters = row.try_get::<_, i64>(0)? as u64;
                stats.newest_dead_letter = row.try_get::<_, i64>(1)? as u64;
            }
            let mut counted = |name: &str| -> Result<u64, Error> {
                let rows = session.query(&sql.counted, &[&name])?;
                rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0).map(|count| count as u64))
            };
            stats.dead_letters_expired = counted("dead_letters_expired")?;
            stats.subscriptions_expired = counted("subscriptions_expired")?;
            if let Some(row) = session.query(sql.oldest_transaction, &[])?.first() {
                let age = row.try_get::<_, Option<f64>>(0)?;
                stats.oldest_transaction = age.map(|seconds| Duration::from_secs_f64(seconds.max(0.0)));
            }
            stats.subscriptions = session.query(&sql.lag, &[])?.iter().map(lag).collect::<Result<_, _>>()?;
            Ok(stats)
        })
    }

    fn tail(&self, pattern: &Pattern, start: &StartPosition) -> Result<Box<dyn Tail>, BackendError> {
        Ok(Box::new(PostgresTail::new(&self.0, pattern, start)?))
    }
}
