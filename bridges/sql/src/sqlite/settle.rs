//! The way back: subscriptions and verdicts. Each call is one transaction, and each change of a lease names its token, so that one
//! who has lost it changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::{BackendError, LeaseOutcome, LeaseToken, Registration, Settlement, Settler};
use eventbroker::{Pattern, Scope, StartPosition};
use rusqlite::{OptionalExtension, Transaction, params};

use crate::pattern::{Form, other_pattern};
use crate::sqlite::membership::process;
use crate::sqlite::statements::pattern::form;
use crate::sqlite::statements::rows;
use crate::sqlite::transport::clock::now_millis;
use crate::sqlite::transport::connection::{Database, Row, Sync};

/// A delivery that died, as in `schema.sql`.
pub(crate) const DEAD: i64 = 3;

/// A broadcast subscription whose provider shows no sign of life for so many lease times is forgotten.
const FORGET_AFTER: i64 = 10;
/// Time between two notes that a subscription is used, at most.
const NOTE_USE_EVERY: Duration = Duration::from_secs(3600);

#[derive(Debug)]
pub(crate) struct SqliteSettler {
    database: Arc<Database>,
    /// The name of this instance.
    instance: String,
    /// When the use of the subscriptions was noted last.
    used_at: Option<Instant>,
}

impl SqliteSettler {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self { database: Arc::clone(database), instance: String::new(), used_at: None }
    }

    fn rows(&self, tokens: impl Iterator<Item = LeaseToken>) -> Vec<(LeaseToken, Option<Row>)> {
        let leases = self.database.leases.lock();
        tokens.map(|token| (token, leases.get(&token.0).copied())).collect()
    }
}

impl Database {
    /// Removes a subscription and its deliveries.
    pub(crate) fn forget(&self, transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
        transaction.prepare_cached(&self.sql.unsubscribe)?.execute([id])?;
        let mut forget = transaction.prepare_cached(&self.sql.forget_deliveries)?;
        let positions = forget.query_map([id], |row| row.get(0))?.collect::<rusqlite::Result<BTreeSet<i64>>>()?;
        self.refresh(transaction, &positions)
    }

    /// The same for the one of a name that belongs to an instance, or to none. False if there is none.
    fn forget_named(&self, transaction: &Transaction<'_>, name: &str, instance: &str) -> rusqlite::Result<bool> {
        let mut subscription = transaction.prepare_cached(&self.sql.subscription)?;
        let id = subscription.query_row([&*self.group, name, instance], |row| row.get(0)).optional()?;
        id.map_or(Ok(false), |id| self.forget(transaction, id).map(|()| true))
    }

    /// After which position, and since when, the events are that a new subscription missed. Nothing if the one that it should begin
    /// after is not held.
    fn missed_from(
        &self,
        transaction: &Transaction<'_>,
        start: &StartPosition,
    ) -> rusqlite::Result<Option<(i64, String)>> {
        Ok(match start {
            StartPosition::After(id) => self.position(transaction, id)?.map(|position| (position, String::new())),
            StartPosition::From(time) => Some((0, rows::time_text(*time))),
            _ => Some((0, String::new())),
        })
    }

    /// A time on the clock of leases until which a broadcast subscription is kept without a sign of life.
    fn forget_at(&self) -> i64 {
        now_millis() + FORGET_AFTER * self.lease_millis()
    }

    /// Derives the status of events anew.
    pub(crate) fn refresh(&self, transaction: &Transaction<'_>, positions: &BTreeSet<i64>) -> rusqlite::Result<()> {
        let now = rows::time_text(SystemTime::now());
        let mut complete = transaction.prepare_cached(&self.sql.complete)?;
        let mut is_open = transaction.prepare_cached(&self.sql.is_open)?;
        let mut refresh = transaction.prepare_cached(&self.sql.refresh)?;
        for position in positions {
            // With many subscriptions, most verdicts change nothing: their deliveries are not all counted for each.
            if complete.execute(params![position, now])? == 0 && !is_open.exists([position])? {
                refresh.execute(params![position, now])?;
            }
        }
        Ok(())
    }
}

/// Ends one lease. False if it was lost before.
fn settle(
    database: &Database,
    transaction: &Transaction<'_>,
    row: Row,
    token: LeaseToken,
    outcome: &LeaseOutcome,
    now: &str,
) -> rusqlite::Result<bool> {
    let Row { position, subscription } = row;
    let token = token.0 as i64;
    let changed = match outcome {
        LeaseOutcome::Done { attempts } => {
            let mut finish = transaction.prepare_cached(&database.sql.finish)?;
            let changed = finish.execute(params![position, subscription, token, attempts, now])?;
            if changed > 0 && *attempts > 1 {
                transaction.prepare_cached(&database.sql.retried)?.execute(params![position, attempts - 1])?;
            }
            changed
        }
        LeaseOutcome::Dead { reason, attempts, error, errors } => {
            let (number, errors) = (database.count(transaction, "dead_letter", 1)?, rows::errors_text(errors));
            let mut bury = transaction.prepare_cached(&database.sql.bury)?;
            let reason = reason.as_str();
            bury.execute(params![position, subscription, token, attempts, reason, error, now, errors, number])?
        }
        _ => {
            let mut release = transaction.prepare_cached(&database.sql.release)?;
            release.execute(params![position, subscription, token])?
        }
    };
    // The same call may have been made before, and its answer lost.
    Ok(changed > 0
        || transaction.prepare_cached(&database.sql.has_token)?.exists(params![position, subscription, token])?)
}

impl Settler for SqliteSettler {
    fn join(&mut self, instance_id: &str) -> Result<bool, BackendError> {
        let database = &*self.database;
        let until = now_millis() + database.lease_millis();
        let joined = database.write(Sync::Later, |transaction| {
            let mut named = transaction.prepare_cached(&database.sql.named)?;
            let holder = |row: &rusqlite::Row<'_>| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?));
            let held = named.query_row([instance_id], holder).optional()?;
            let is_taken = held.is_some_and(|(holder, until)| {
                holder != database.holder && process::is_alive(&holder).unwrap_or_else(|| until > now_millis())
            });
            if !is_taken {
                let name = params![instance_id, database.holder, until];
                transaction.prepare_cached(&database.sql.name)?.execute(name)?;
            }
            Ok(!is_taken)
        })?;
        if joined {
            self.instance = instance_id.to_owned();
        }
        Ok(joined)
    }

    fn register(&mut self, registration: &Registration) -> Result<(), BackendError> {
        let database = &*self.database;
        let pattern =
            Pattern::parse(&registration.pattern).map_err(|error| BackendError::Refused(error.to_string()))?;
        let form = form(&pattern);
        let owned = registration.scope == Scope::Broadcast;
        let instance = match (owned, registration.durable) {
            (false, _) => String::new(),
            (true, false) => database.member.clone(),
            (true, true) => self.instance.clone(),
        };
        let registered = database.write(Sync::Full, |transaction| {
            let known: Option<(i64, String)> = transaction
                .prepare_cached(&database.sql.subscription)?
                .query_row(params![database.group, registration.name, instance], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            let id = match known {
                Some((id, known)) if known != pattern.as_str() => {
                    if !registration.change_pattern {
                        let (name, group) = (&registration.name, &database.group);
                        return Ok(Err(other_pattern(name, group, &known, pattern.as_str())));
                    }
                    let Form { final_rest, dots, glob, literals } = &form;
                    let changed = params![id, pattern.as_str(), final_rest, *dots as i64, glob, literals];
                    transaction.prepare_cached(&database.sql.change_pattern)?.execute(changed)?;
                    id
                }
                Some((id, _)) => id,
                None => {
                    let Some((after, since)) = database.missed_from(transaction, &registration.start)? else {
                        return Ok(Err(format!("start: the event of {:?} is not held", registration.start)));
                    };
                    let row = params![
                        database.group,
                        registration.name,
                        instance,
                        pattern.as_str(),
                        form.final_rest,
                        form.dots as i64,
                        form.glob,
                        form.literals,
                        owned && registration.durable,
                    ];
                    let mut subscribe = transaction.prepare_cached(&database.sql.subscribe)?;
                    let id = subscribe.query_row(row, |row| row.get(0))?;
                    if registration.start != StartPosition::New {
                        let mut backfill = transaction.prepare_cached(&database.sql.backfill)?;
                        backfill.execute(params![id, after, since])?;
                    }
                    id
                }
            };
            let owner = owned.then_some((&database.member, database.forget_at()));
            let now = rows::time_text(SystemTime::now());
            let serve = params![id, owner.map(|(owner, _)| owner), owner.map(|(_, until)| until), now];
            transaction.prepare_cached(&database.sql.serve)?.execute(serve)?;
            Ok(Ok(()))
        })?;
        registered.map_err(BackendError::Refused)?;
        database.served.lock().insert(Arc::clone(&registration.name), instance);
        Ok(())
    }

    fn unregister(&mut self, name: &str) -> Result<(), BackendError> {
        let database = &*self.database;
        let served = database.served.lock().get(name).cloned();
        if served.as_deref() == Some(&database.member) {
            database.write(Sync::Later, |transaction| database.forget_named(transaction, name, &database.member))?;
        }
        database.served.lock().remove(name);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<bool, BackendError> {
        let database = &*self.database;
        database.write(Sync::Later, |transaction| {
            let shared = database.forget_named(transaction, name, "")?;
            Ok(database.forget_named(transaction, name, &self.instance)? || shared)
        })
    }

    fn settle(&mut self, settlements: &[Settlement]) -> Result<Vec<LeaseToken>, BackendError> {
        let database = &*self.database;
        let rows = self.rows(settlements.iter().map(|it| it.token));
        let lost = database.write(Sync::Later, |transaction| {
            let now = rows::time_text(SystemTime::now());
            let (mut lost, mut positions) = (Vec::new(), BTreeSet::new());
            for (settlement, (token, row)) in settlements.iter().zip(&rows) {
                match row {
                    Some(row) if settle(database, transaction, *row, *token, &settlement.outcome, &now)? => {
                        positions.insert(row.position);
                    }
                    _ => lost.push(*token),
                }
            }
            database.refresh(transaction, &positions)?;
            Ok(lost)
        })?;
        {
            let mut leases = database.leases.lock();
            settlements.iter().for_each(|it| _ = leases.remove(&it.token.0));
        }
        let given_back = settlements.iter().any(|it| it.outcome == LeaseOutcome::Released);
        if given_back || rows.len() > lost.len() {
            // A key may be free again.
            database.bell.stored();
        }
        Ok(lost)
    }

    fn mark(&mut self, token: LeaseToken, begun: bool) -> Result<bool, BackendError> {
        let database = &*self.database;
        let Some(row) = database.leases.lock().get(&token.0).copied() else { return Ok(false) };
        let statement = if begun { &database.sql.mark } else { &database.sql.unmark };
        let changed = database.write(Sync::Later, |transaction| {
            transaction.prepare_cached(statement)?.execute(params![row.position, row.subscription, token.0 as i64])
        })?;
        Ok(changed > 0)
    }

    fn lease_time(&self) -> Option<Duration> {
        Some(self.database.lease_time)
    }

    fn extend(&mut self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>, BackendError> {
        let database = &*self.database;
        let rows = self.rows(tokens.iter().copied());
        let until = now_millis() + database.lease_millis();
        let is_use_due = self.is_use_due();
        let lost = database.write(Sync::Later, |transaction| {
            let mut extend = transaction.prepare_cached(&database.sql.extend)?;
            let mut lost = Vec::new();
            for (token, row) in &rows {
                let Some(row) = row else { continue };
                let extended = extend.execute(params![row.position, row.subscription, token.0 as i64, until])?;
                if extended == 0 {
                    lost.push(*token);
                }
            }
            self.show_life(transaction, until, is_use_due)?;
            Ok(lost)
        })?;
        if is_use_due {
            self.used_at = Some(Instant::now());
        }
        Ok(lost)
    }
}

impl SqliteSettler {
    /// Whether it is time to note that the subscriptions are used.
    fn is_use_due(&self) -> bool {
        let every = NOTE_USE_EVERY.min(self.database.idle_expiry / 4);
        self.used_at.is_none_or(|at| at.elapsed() >= every)
    }

    /// Keeps the name of this instance until then, and what it serves.
    fn show_life(&self, transaction: &Transaction<'_>, until: i64, note_use: bool) -> rusqlite::Result<()> {
        let database = &*self.database;
        if note_use {
            let now = rows::time_text(SystemTime::now());
            let mut used = transaction.prepare_cached(&database.sql.used)?;
            for (name, instance) in &*database.served.lock() {
                used.execute(params![database.group, name, instance, now])?;
            }
        }
        transaction.prepare_cached(&database.sql.keep_name)?.execute(params![database.holder, until])?;
        transaction.prepare_cached(&database.sql.alive)?.execute(params![database.member, database.forget_at()])?;
        Ok(())
    }
}

/// What only this provider has served goes with it.
impl Drop for SqliteSettler {
    fn drop(&mut self) {
        let database = &*self.database;
        let forgotten = database.write(Sync::Later, |transaction| {
            transaction.prepare_cached(&database.sql.unname)?.execute([&database.holder])?;
            let mut statement = transaction.prepare(&database.sql.own)?;
            let own = statement.query_map([&database.member], |row| row.get(0))?;
            own.collect::<rusqlite::Result<Vec<i64>>>()?.into_iter().try_for_each(|id| database.forget(transaction, id))
        });
        if let Err(error) = forgotten {
            tracing::warn!(%error, "the name and the broadcast subscriptions of this instance stay until their time is up");
        }
    }
}
