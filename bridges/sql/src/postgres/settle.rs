//! The way back: subscriptions and verdicts. Each change of a lease names its holder and its token, so that one who has lost it
//! changes nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, LeaseOutcome, LeaseToken, Registration, Settlement, Settler};
use eventbroker::{Pattern, Scope, StartPosition};
use postgres::Error;
use postgres::types::ToSql;

use crate::columns::errors_text;
use crate::pattern::{Form, other_pattern};
use crate::postgres::statements::Statements;
use crate::postgres::statements::pattern::form;
use crate::postgres::statements::rows::{split_time, storable};
use crate::postgres::transport::connection::{Database, Row, forget, notify, seconds};
use crate::postgres::transport::link::Session;

/// States of a delivery, as in `schema.sql`.
const READY: i32 = 0;
const DONE: i32 = 2;
const DEAD: i32 = 3;

/// A broadcast subscription whose provider shows no sign of life for so many lease times is forgotten.
const FORGET_AFTER: u32 = 10;
/// Time between two notes that a subscription is used, at most.
const NOTE_USE_EVERY: Duration = Duration::from_secs(3600);
/// How long a new subscription may take to get what it missed.
const BACKFILL_LIMIT: Duration = Duration::from_secs(60);
/// How long the end of this waits for the server.
const FAREWELL_LIMIT: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(crate) struct PostgresSettler {
    database: Arc<Database>,
    /// The name of this instance.
    instance: String,
    /// When the use of the subscriptions was noted last.
    used_at: Option<Instant>,
}

/// A subscription as it should be.
struct Wanted {
    group: String,
    name: String,
    instance: String,
    pattern: String,
    form: Form,
    change_pattern: bool,
    durable: bool,
    start: StartPosition,
    /// Of a broadcast subscription: the provider that serves it.
    owner: Option<String>,
    alive: f64,
}

impl PostgresSettler {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self { database: Arc::clone(database), instance: String::new(), used_at: None }
    }

    fn rows(&self, tokens: impl Iterator<Item = LeaseToken>) -> Vec<(LeaseToken, Option<Row>)> {
        let leases = self.database.leases.lock();
        tokens.map(|token| (token, leases.get(&token.0).copied())).collect()
    }

    /// How long a broadcast subscription is kept without a sign of life.
    fn kept(&self) -> f64 {
        seconds(self.database.lease_time.saturating_mul(FORGET_AFTER))
    }

    fn forget_named(&self, name: &str, instance: &str) -> Result<bool, BackendError> {
        let (sql, group) = (Arc::clone(&self.database.sql), self.database.group.clone());
        let (name, instance) = (name.to_owned(), instance.to_owned());
        self.database.verdicts.call(move |session| {
            let known = session.query(&sql.subscription, &[&group, &name, &instance])?;
            known.first().map_or(Ok(false), |row| forget(session, &sql, row.try_get(0)?).map(|()| true))
        })
    }

    /// Whether it is time to note that the subscriptions are used.
    fn is_use_due(&self) -> bool {
        let every = NOTE_USE_EVERY.min(self.database.idle_expiry / 4);
        self.used_at.is_none_or(|at| at.elapsed() >= every)
    }
}

/// Makes a subscription known, or says why it can't be.
fn register(session: &mut Session, sql: &Statements, wanted: &Wanted) -> Result<Result<(), String>, Error> {
    let Wanted { group, name, instance, pattern, form, .. } = wanted;
    let mut is_new = false;
    let id = loop {
        let known = session.query(&sql.subscription, &[group, name, instance])?;
        if let Some(row) = known.first() {
            let (id, known): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
            if known != *pattern {
                if !wanted.change_pattern {
                    return Ok(Err(other_pattern(name, group, &known, pattern)));
                }
                let dots = form.dots as i32;
                let changed =
                    [&id as &(dyn ToSql + Sync), pattern, &form.final_rest, &dots, &form.glob, &form.literals];
                session.execute(&sql.change_pattern, &changed)?;
            }
            break id;
        }
        let epoch = Some(std::time::SystemTime::UNIX_EPOCH);
        let (after, since) = match &wanted.start {
            StartPosition::New => (None, None),
            StartPosition::After(id) => match session.query(&sql.position, &[&id.to_string()])?.first() {
                Some(row) => (Some(row.try_get::<_, i64>(0)?), epoch),
                None => return Ok(Err(format!("start: the event of {:?} is not held", wanted.start))),
            },
            StartPosition::From(time) => (Some(0), Some(split_time(*time).0)),
            _ => (Some(0), epoch),
        };
        let dots = form.dots as i32;
        let row = session.query(
            &sql.subscribe,
            &[
                group,
                name,
                instance,
                pattern,
                &form.final_rest,
                &dots,
                &form.glob,
                &form.literals,
                &wanted.durable,
                &after,
                &since,
            ],
        )?;
        // If somebody else was quicker, it is known now.
        if let Some(row) = row.first() {
            is_new = after.is_some();
            break row.try_get(0)?;
        }
    };
    if is_new {
        session.execute(&sql.backfill, &[&id])?;
    }
    session.execute(&sql.serve, &[&id, &wanted.owner, &wanted.owner.as_ref().map(|_| wanted.alive)])?;
    Ok(Ok(()))
}

impl Settler for PostgresSettler {
    fn join(&mut self, instance_id: &str) -> Result<bool, BackendError> {
        let (sql, member) = (Arc::clone(&self.database.sql), self.database.member.clone());
        let (name, lease) = (instance_id.to_owned(), seconds(self.database.lease_time));
        let (channel, joined) = (self.database.channel.clone(), format!("{} joined", sql.events));
        let is_ours = self.database.verdicts.call(move |session| {
            let is_ours = !session.query(&sql.name, &[&name, &member, &lease])?.is_empty();
            if is_ours {
                // From now on this instance wants to hear what the others store.
                notify(session, &channel, &joined)?;
            }
            Ok(is_ours)
        })?;
        if is_ours {
            self.instance = instance_id.to_owned();
        }
        Ok(is_ours)
    }

    fn register(&mut self, registration: &Registration) -> Result<(), BackendError> {
        let database = &*self.database;
        let pattern =
            Pattern::parse(&registration.pattern).map_err(|error| BackendError::Refused(error.to_string()))?;
        let owned = registration.scope == Scope::Broadcast;
        let instance = match (owned, registration.durable) {
            (false, _) => String::new(),
            (true, false) => database.member.clone(),
            (true, true) => self.instance.clone(),
        };
        if registration.name.contains('\0') {
            return Err(BackendError::Refused("name: has a NUL, which PostgreSQL can't store".to_owned()));
        }
        let wanted = Wanted {
            group: database.group.clone(),
            name: registration.name.to_string(),
            instance: instance.clone(),
            pattern: pattern.as_str().to_owned(),
            form: form(&pattern),
            change_pattern: registration.change_pattern,
            durable: owned && registration.durable,
            start: registration.start.clone(),
            owner: owned.then(|| database.member.clone()),
            alive: self.kept(),
        };
        let sql = Arc::clone(&database.sql);
        let registered = database.verdicts.call_within(BACKFILL_LIMIT, move |session| {
            session.transaction(|session| {
                session
                    .client
                    .batch_execute(&format!("SET LOCAL statement_timeout = {}", BACKFILL_LIMIT.as_millis()))?;
                register(session, &sql, &wanted)
            })
        })?;
        registered.map_err(BackendError::Refused)?;
        if registration.start != StartPosition::New {
            database.catching_up.store(true, Ordering::SeqCst);
        }
        database.served.lock().insert(Arc::clone(&registration.name), instance);
        Ok(())
    }

    fn unregister(&mut self, name: &str) -> Result<(), BackendError> {
        let database = &*self.database;
        let served = database.served.lock().get(name).cloned();
        if served.as_deref() == Some(&database.member) {
            self.forget_named(name, &database.member)?;
        }
        database.served.lock().remove(name);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<bool, BackendError> {
        let shared = self.forget_named(name, "")?;
        let own = !self.instance.is_empty() && self.forget_named(name, &self.instance)?;
        Ok(own || shared)
    }

    fn settle(&mut self, settlements: &[Settlement]) -> Result<Vec<LeaseToken>, BackendError> {
        let database = &*self.database;
        let rows = self.rows(settlements.iter().map(|it| it.token));
        let held = settlements.iter().zip(&rows).filter_map(|(it, (_, row))| Some((it, (*row)?)));
        let (mut positions, mut subscriptions, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        let (mut states, mut tries) = (Vec::new(), Vec::new());
        let (mut reasons, mut messages, mut histories) = (Vec::new(), Vec::new(), Vec::new());
        for (settlement, row) in held {
            positions.push(row.position);
            subscriptions.push(row.subscription);
            tokens.push(settlement.token.0 as i64);
            let (state, attempts, told) = match &settlement.outcome {
                LeaseOutcome::Done { attempts } => (DONE, *attempts, None),
                LeaseOutcome::Dead { reason, attempts, error, errors } => {
                    (DEAD, *attempts, Some((reason.as_str(), storable(error), errors_text(errors))))
                }
                _ => (READY, 0, None),
            };
            states.push(state);
            tries.push(i32::try_from(attempts).unwrap_or(i32::MAX));
            let (reason, message, history) = told.map_or((None, None, None), |(a, b, c)| (Some(a), Some(b), Some(c)));
            reasons.push(reason);
            messages.push(message);
            histories.push(history);
        }
        let (sql, member) = (Arc::clone(&database.sql), database.member.clone());
        let mut lost: Vec<LeaseToken> = database.verdicts.call(move |session| {
            let values: [&(dyn ToSql + Sync); 9] =
                [&member, &positions, &subscriptions, &tokens, &states, &tries, &reasons, &messages, &histories];
            let lost = session.query(&sql.settle, &values)?;
            lost.iter().map(|row| row.try_get::<_, i64>(0).map(|token| LeaseToken(token as u64))).collect()
        })?;
        lost.extend(rows.iter().filter(|(_, row)| row.is_none()).map(|(token, _)| *token));
        {
            let mut leases = database.leases.lock();
            settlements.iter().for_each(|it| _ = leases.remove(&it.token.0));
        }
        // A key may be free again. Elsewhere this is worth a notification only if something went back.
        if settlements.iter().any(|it| it.outcome == LeaseOutcome::Released) {
            database.stored();
        } else if rows.len() > lost.len() {
            database.bells.ring();
        }
        Ok(lost)
    }

    fn mark(&mut self, token: LeaseToken, begun: bool) -> Result<bool, BackendError> {
        let database = &*self.database;
        let Some(row) = database.leases.lock().get(&token.0).copied() else { return Ok(false) };
        let (sql, member) = (Arc::clone(&database.sql), database.member.clone());
        let changed = database.verdicts.call(move |session| {
            let statement = if begun { &sql.mark } else { &sql.unmark };
            session.execute(statement, &[&row.position, &row.subscription, &(token.0 as i64), &member])
        })?;
        Ok(changed > 0)
    }

    fn lease_time(&self) -> Option<Duration> {
        Some(self.database.lease_time)
    }

    fn extend(&mut self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>, BackendError> {
        let database = &*self.database;
        let rows: Vec<(LeaseToken, Row)> =
            self.rows(tokens.iter().copied()).into_iter().filter_map(|(token, row)| Some((token, row?))).collect();
        let asked: Vec<i64> = rows.iter().map(|(token, _)| token.0 as i64).collect();
        let positions: Vec<i64> = rows.iter().map(|(_, row)| row.position).collect();
        let subscriptions: Vec<i64> = rows.iter().map(|(_, row)| row.subscription).collect();
        let is_use_due = self.is_use_due();
        let used: (Vec<String>, Vec<String>) = if is_use_due {
            database.served.lock().iter().map(|(name, instance)| (name.to_string(), instance.clone())).unzip()
        } else {
            (Vec::new(), Vec::new())
        };
        let (sql, member, group) = (Arc::clone(&database.sql), database.member.clone(), database.group.clone());
        let (lease, kept) = (seconds(database.lease_time), self.kept());
        let extended: HashSet<i64> = database.verdicts.call(move |session| {
            let mut extended = HashSet::new();
            if !asked.is_empty() {
                let rows = session.query(&sql.extend, &[&positions, &subscriptions, &asked, &member, &lease])?;
                extended = rows.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<i64>, _>>()?;
            }
            if !used.0.is_empty() {
                session.execute(&sql.used, &[&group, &used.0, &used.1])?;
            }
            session.execute(&sql.show_life, &[&member, &lease, &kept])?;
            Ok(extended)
        })?;
        if is_use_due {
            self.used_at = Some(Instant::now());
        }
        let lost = rows.iter().map(|(token, _)| *token).filter(|token| !extended.contains(&(token.0 as i64)));
        Ok(lost.collect())
    }
}

/// What only this provider has served goes with it.
impl Drop for PostgresSettler {
    fn drop(&mut self) {
        if self.instance.is_empty() {
            return;
        }
        let (sql, member) = (Arc::clone(&self.database.sql), self.database.member.clone());
        let forgotten = self.database.verdicts.call_within(FAREWELL_LIMIT, move |session| {
            session.execute(&sql.unname, &[&member])?;
            for row in session.query(&sql.own, &[&member])? {
                forget(session, &sql, row.try_get(0)?)?;
            }
            Ok(())
        });
        if let Err(error) = forgotten {
            tracing::warn!(%error, "the name and the broadcast subscriptions of this instance stay until their time is up");
        }
    }
}
