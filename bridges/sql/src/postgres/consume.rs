//! The way in: claims what is ready, oldest first, waits for more, and sees to what nobody else does: the deliveries of members
//! that died, the subscriptions of providers that are gone, events that are old enough to go.
//!
//! What this provider stores rings the bell, and what others store does so by a notification, which may be lost; so it looks each
//! `poll_interval` all the same.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, Demand, Ingest, Lease, LeaseToken, Waker};

use crate::bell::{Bell, Heard};
use crate::postgres::statements::rows;
use crate::postgres::transport::connection::{Database, Row, forget, seconds};

/// How deep a claim looks behind keys whose deliveries are leased.
const CLAIM_DEPTH: i32 = 10_000;
/// Time between two looks for old events, and how many go at a time.
const CLEAN_UP_EVERY: Duration = Duration::from_secs(10);
const CLEAN_UP: i64 = 1_000;
/// How long those who live may take to show it when the server is back: their connections' pauses, and those of their threads.
const RETURN: Duration = Duration::from_secs(2);
/// The state of a delivery that died, as in `schema.sql`.
const DEAD: i32 = 3;

#[derive(Debug)]
pub(crate) struct PostgresIngest {
    database: Arc<Database>,
    bell: Arc<Bell>,
    next_care: Instant,
    next_clean_up: Instant,
    /// Ids of the subscriptions, by name.
    subscriptions: HashMap<Arc<str>, i64>,
}

/// What a claim has brought: the lease's row and token, whether it is a suspect and its crashes, and the event.
type Claimed = (Row, u64, bool, u32, Result<eventbroker::Event, String>);

impl PostgresIngest {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        let now = Instant::now();
        let (database, bell) = (Arc::clone(database), database.bells.add());
        Self { database, bell, next_care: now, next_clean_up: now, subscriptions: HashMap::new() }
    }

    /// Learns the ids of subscriptions that it does not know yet.
    fn find(&mut self, demand: &[Demand]) -> Result<(), BackendError> {
        let served = self.database.served.lock();
        let unknown = demand.iter().filter(|demand| !self.subscriptions.contains_key(&demand.subscription));
        let (names, instances): (Vec<String>, Vec<String>) = unknown
            .filter_map(|demand| Some((demand.subscription.to_string(), served.get(&demand.subscription)?.clone())))
            .unzip();
        drop(served);
        if names.is_empty() {
            return Ok(());
        }
        let (sql, group) = (Arc::clone(&self.database.sql), self.database.group.clone());
        let found = self.database.claims.call(move |session| {
            let rows = session.query(&sql.subscriptions, &[&group, &names, &instances])?;
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<Vec<(String, i64)>, _>>()
        })?;
        self.subscriptions.extend(found.into_iter().map(|(name, id)| (name.into(), id)));
        Ok(())
    }

    fn claim(&self, demand: &[Demand]) -> Result<Vec<Lease>, BackendError> {
        let database = &*self.database;
        let mut wanted: Vec<(i64, &Demand)> =
            demand.iter().filter_map(|demand| Some((*self.subscriptions.get(&demand.subscription)?, demand))).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        // Everybody takes the locks of subscriptions in the same order.
        wanted.sort_by_key(|(id, _)| *id);
        let ids: Vec<i64> = wanted.iter().map(|(id, _)| *id).collect();
        let rooms: Vec<i32> =
            wanted.iter().map(|(_, demand)| demand.deliveries.try_into().unwrap_or(i32::MAX)).collect();
        let first_token =
            database.next_token.fetch_add(rooms.iter().map(|demand| *demand as u64).sum(), Ordering::Relaxed) as i64;
        let (sql, member, lease) = (Arc::clone(&database.sql), database.member.clone(), seconds(database.lease_time));
        let asked = Instant::now();
        let claimed: Vec<Claimed> = database.claims.call(move |session| {
            let rows = session.query(&sql.claim, &[&member, &lease, &CLAIM_DEPTH, &ids, &rooms, &first_token])?;
            let claimed = |row: &postgres::Row| {
                let place = Row { position: row.try_get(2)?, subscription: row.try_get(1)? };
                let crashes = row.try_get::<_, i32>(4)?.try_into().unwrap_or(0);
                let event = rows::event(row, 5).map_err(|error| error.to_string());
                Ok((place, row.try_get::<_, i64>(0)? as u64, row.try_get(3)?, crashes, event))
            };
            rows.iter().map(claimed).collect::<Result<_, _>>()
        })?;
        let names: HashMap<i64, &Arc<str>> = wanted.iter().map(|(id, demand)| (*id, &demand.subscription)).collect();
        let mut leases = Vec::with_capacity(claimed.len());
        for (row, token, suspect, crashes, event) in claimed {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    // Somebody has inserted what is no event: it may not stand in the way of the others.
                    tracing::warn!(position = row.position, %error, "a row of the events' table is no event");
                    self.bury(row, token, &error)?;
                    continue;
                }
            };
            let Some(name) = names.get(&row.subscription) else { continue };
            let lease = Lease::new(LeaseToken(token), Arc::clone(name), event).asked_at(asked);
            database.leases.lock().insert(token, row);
            leases.push(if suspect { lease.suspected(crashes) } else { lease });
        }
        Ok(leases)
    }

    fn bury(&self, row: Row, token: u64, problem: &str) -> Result<(), BackendError> {
        let (sql, member) = (Arc::clone(&self.database.sql), self.database.member.clone());
        let problem = rows::storable(problem);
        self.database.claims.call(move |session| {
            let Row { position, subscription } = row;
            let (none, reason) = (vec![None::<String>], vec!["unreadable"]);
            let values: [&(dyn postgres::types::ToSql + Sync); 9] = [
                &member,
                &vec![position],
                &vec![subscription],
                &vec![token as i64],
                &vec![DEAD],
                &vec![0_i32],
                &reason,
                &vec![problem],
                &none,
            ];
            session.query(&sql.settle, &values).map(drop)
        })
    }

    /// Gives back what members that died have held, and forgets what nobody will ask for again.
    fn care(&mut self) -> Result<(), BackendError> {
        let now = Instant::now();
        if now < self.next_care {
            return Ok(());
        }
        self.next_care = now + self.database.lease_time / 4;
        // Another process may have removed a subscription and made it again.
        self.subscriptions.clear();
        let database = &*self.database;
        let (sql, member) = (Arc::clone(&database.sql), database.member.clone());
        let others = database.claims.call(move |session| {
            session.execute(&sql.rescue, &[])?;
            for row in session.query(&sql.gone, &[])? {
                forget(session, &sql, row.try_get(0)?)?;
            }
            session.query(&sql.others, &[&member])?.first().map_or(Ok(true), |row| row.try_get(0))
        })?;
        database.bells.others.store(others, Ordering::Relaxed);
        if now >= self.next_clean_up {
            // What has piled up goes batch by batch, with claims in between.
            if self.clean_up()? {
                self.next_care = now;
            } else {
                self.next_clean_up = now + CLEAN_UP_EVERY.min(database.idle_expiry);
            }
        }
        Ok(())
    }

    /// Removes events and subscriptions whose time is up, and deliveries that belong to no subscription. Of the events one batch: true if
    /// there may be more.
    fn clean_up(&self) -> Result<bool, BackendError> {
        let database = &*self.database;
        let sql = Arc::clone(&database.sql);
        let (retention, idle_expiry) = (database.retention, database.idle_expiry);
        database.claims.call(move |session| {
            let expired = session.query(&sql.expire, &[&seconds(retention), &CLEAN_UP])?;
            let counts = expired.first().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
            let (dead, events): (i64, i64) = counts.transpose()?.unwrap_or_default();
            if dead > 0 {
                tracing::warn!(dead, ?retention, "dead letters went with their events");
                session.execute(&sql.count, &[&"dead_letters_expired", &dead])?;
            }
            for row in session.query(&sql.unused, &[&seconds(idle_expiry)])? {
                let (id, group, name): (i64, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                tracing::warn!(group, name, ?idle_expiry, "nobody used a subscription: it is removed");
                forget(session, &sql, id)?;
                session.execute(&sql.count, &[&"subscriptions_expired", &1_i64])?;
            }
            for row in session.query(&sql.orphans, &[])? {
                forget(session, &sql, row.try_get(0)?)?;
            }
            Ok(events == CLEAN_UP)
        })
    }

    fn measure_backlog(&self) -> Result<(), BackendError> {
        let database = &*self.database;
        database.backlog.look(|max| {
            let sql = Arc::clone(&database.sql);
            database.claims.call(move |session| {
                session.query(&sql.is_full, &[&max])?.first().map_or(Ok(false), |row| row.try_get(0))
            })
        })
    }

    /// Brings to new subscriptions that begin in the past what was being stored when they were made.
    fn catch_up(&self) -> Result<(), BackendError> {
        let database = &*self.database;
        if !database.catching_up.load(Ordering::SeqCst) {
            return Ok(());
        }
        let sql = Arc::clone(&database.sql);
        let left = database.claims.call(move |session| {
            session.execute(&sql.note_missed, &[])?;
            // Before the look, so that what is caught up is no more than what was looked for.
            let horizon = session.query("SELECT pg_snapshot_xmin(pg_current_snapshot())::text", &[])?;
            let horizon: Option<String> = horizon.first().map(|row| row.try_get(0)).transpose()?;
            session.execute(&sql.catch_up, &[])?;
            session.query(&sql.caught_up, &[&horizon])?.first().map_or(Ok(0_i64), |row| row.try_get(0))
        })?;
        if left == 0 {
            database.catching_up.store(false, Ordering::SeqCst);
        }
        Ok(())
    }
}

impl Ingest for PostgresIngest {
    fn receive(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        let received = self.look(demand, wait);
        if received.is_err() {
            // While the server was away nobody could extend a lease: those who live do so before anybody is taken for dead.
            self.next_care = self.next_care.max(Instant::now() + RETURN.max(self.database.lease_time / 2));
        }
        received
    }

    fn waker(&self) -> Option<Waker> {
        let bell = Arc::clone(&self.bell);
        Some(Arc::new(move || bell.wake()))
    }
}

impl PostgresIngest {
    /// Claims what is ready, or waits for it.
    fn look(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        let deadline = Instant::now() + wait;
        if !demand.is_empty() {
            self.database.listen();
        }
        // A subscription may have been removed and made again.
        self.subscriptions.retain(|name, _| demand.iter().any(|demand| demand.subscription == *name));
        loop {
            self.care()?;
            self.measure_backlog()?;
            self.catch_up()?;
            self.find(demand)?;
            let leases = self.claim(demand)?;
            if !leases.is_empty() {
                return Ok(leases);
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(Vec::new());
            }
            let next_look = now + self.database.poll_interval;
            if self.bell.wait(next_look.min(deadline).min(self.next_care.max(now))) == Heard::Woken {
                return Ok(Vec::new());
            }
        }
    }
}
