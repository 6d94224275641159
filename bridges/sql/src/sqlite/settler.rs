//! The way back: subscriptions and verdicts. Each call is one transaction, and each change of a lease names its token, so that one
//! who has lost it changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eventbroker::provider::{BackendError, LeaseOutcome, LeaseToken, Registration, Settlement, Settler};
use eventbroker::{Pattern, Scope};
use rusqlite::{OptionalExtension, Transaction, params};

use super::clock::now_millis;
use super::connection::{Database, Row, Sync};
use super::pattern::Form;
use super::rows;

// States of a delivery, as in `schema.sql`.
const DONE: i64 = 2;
const DEAD: i64 = 3;

/// A broadcast subscription whose provider shows no sign of life for so many lease times is forgotten.
const FORGET_AFTER: i64 = 10;

#[derive(Debug)]
pub(super) struct SqliteSettler(Arc<Database>);

impl SqliteSettler {
    pub(super) fn new(database: &Arc<Database>) -> Self {
        Self(Arc::clone(database))
    }

    fn rows(&self, tokens: impl Iterator<Item = LeaseToken>) -> Vec<(LeaseToken, Option<Row>)> {
        let leases = self.0.leases.lock();
        tokens.map(|token| (token, leases.get(&token.0).copied())).collect()
    }
}

impl Database {
    /// The name of a broadcast subscription, which only this provider serves.
    pub(super) fn own_name(&self, name: &str) -> String {
        format!("{name} at {}", self.member)
    }

    /// Shows that the broadcast subscriptions of this provider are served.
    pub(super) fn stay_alive(&self, transaction: &Transaction<'_>) -> rusqlite::Result<()> {
        let until = now_millis() + FORGET_AFTER * self.lease_millis();
        transaction.prepare_cached(&self.sql.alive)?.execute(params![self.member, until])?;
        Ok(())
    }

    /// Removes a subscription and its deliveries.
    pub(super) fn forget(&self, transaction: &Transaction<'_>, id: i64) -> rusqlite::Result<()> {
        transaction.prepare_cached(&self.sql.unsubscribe)?.execute([id])?;
        let mut forget = transaction.prepare_cached(&self.sql.forget_deliveries)?;
        let positions = forget.query_map([id], |row| row.get(0))?.collect::<rusqlite::Result<BTreeSet<i64>>>()?;
        self.refresh(transaction, &positions)
    }

    /// The same for one of a name. False if there is none.
    fn forget_named(&self, name: &str) -> Result<bool, BackendError> {
        self.write(Sync::Later, |transaction| {
            let id: Option<i64> = transaction
                .prepare_cached(&self.sql.subscription)?
                .query_row([self.group.as_str(), name], |row| row.get(0))
                .optional()?;
            if let Some(id) = id {
                self.forget(transaction, id)?;
            }
            Ok(id.is_some())
        })
    }

    /// Derives the status of events anew.
    pub(super) fn refresh(&self, transaction: &Transaction<'_>, positions: &BTreeSet<i64>) -> rusqlite::Result<()> {
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
    let finish = |state: i64, attempts: u32, reason: Option<&str>, error: Option<&str>| {
        let mut statement = transaction.prepare_cached(&database.sql.finish)?;
        statement.execute(params![position, subscription, token, state, attempts, reason, error, now])
    };
    let changed = match outcome {
        LeaseOutcome::Done { attempts } => finish(DONE, *attempts, None, None)?,
        LeaseOutcome::Dead { reason, attempts, error, .. } => {
            finish(DEAD, *attempts, Some(reason.as_str()), Some(error))?
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
    fn join(&mut self, _: &str) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn register(&mut self, registration: &Registration) -> Result<(), BackendError> {
        let database = &*self.0;
        let pattern =
            Pattern::parse(&registration.pattern).map_err(|error| BackendError::Refused(error.to_string()))?;
        let form = Form::of(&pattern);
        let own = registration.scope == Scope::Broadcast;
        let name = if own { database.own_name(&registration.name) } else { registration.name.to_string() };
        let until = now_millis() + FORGET_AFTER * database.lease_millis();
        let known = database.write(Sync::Full, |transaction| {
            let known: Option<String> = transaction
                .prepare_cached(&database.sql.subscription)?
                .query_row([&database.group, &name], |row| row.get(1))
                .optional()?;
            if known.is_none() {
                transaction.prepare_cached(&database.sql.subscribe)?.execute(params![
                    database.group,
                    name,
                    pattern.as_str(),
                    form.final_rest,
                    form.dots as i64,
                    form.glob,
                    form.literals,
                    own.then_some(&database.member),
                    own.then_some(until),
                ])?;
            }
            Ok(known)
        })?;
        match known {
            Some(known) if known != pattern.as_str() => Err(BackendError::Refused(format!(
                "the subscription {name:?} of the group {:?} has the pattern {known}, not {pattern}",
                database.group
            ))),
            _ => Ok(()),
        }
    }

    fn unregister(&mut self, name: &str) -> Result<(), BackendError> {
        self.0.forget_named(&self.0.own_name(name)).map(drop)
    }

    fn remove(&mut self, name: &str) -> Result<bool, BackendError> {
        self.0.forget_named(name)
    }

    fn settle(&mut self, settlements: &[Settlement]) -> Result<Vec<LeaseToken>, BackendError> {
        let database = &*self.0;
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
        let database = &*self.0;
        let Some(row) = database.leases.lock().get(&token.0).copied() else { return Ok(false) };
        let statement = if begun { &database.sql.mark } else { &database.sql.unmark };
        let changed = database.write(Sync::Later, |transaction| {
            transaction.prepare_cached(statement)?.execute(params![row.position, row.subscription, token.0 as i64])
        })?;
        Ok(changed > 0)
    }

    fn lease_time(&self) -> Option<Duration> {
        Some(self.0.lease_time)
    }

    fn extend(&mut self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>, BackendError> {
        let database = &*self.0;
        let rows = self.rows(tokens.iter().copied());
        let until = now_millis() + database.lease_millis();
        database.write(Sync::Later, |transaction| {
            let mut extend = transaction.prepare_cached(&database.sql.extend)?;
            let mut lost = Vec::new();
            for (token, row) in &rows {
                let Some(row) = row else { continue };
                let extended = extend.execute(params![row.position, row.subscription, token.0 as i64, until])?;
                if extended == 0 {
                    lost.push(*token);
                }
            }
            database.stay_alive(transaction)?;
            Ok(lost)
        })
    }
}

/// What only this provider has served goes with it.
impl Drop for SqliteSettler {
    fn drop(&mut self) {
        let database = &*self.0;
        let forgotten = database.write(Sync::Later, |transaction| {
            let mut statement = transaction.prepare(&database.sql.own)?;
            let own = statement.query_map([&database.member], |row| row.get(0))?;
            own.collect::<rusqlite::Result<Vec<i64>>>()?.into_iter().try_for_each(|id| database.forget(transaction, id))
        });
        if let Err(error) = forgotten {
            tracing::warn!(%error, "the broadcast subscriptions of this instance stay until their time is up");
        }
    }
}
