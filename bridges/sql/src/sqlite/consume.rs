//! The way in: claims what is ready, oldest first, waits for more, and sees to what nobody else does: the deliveries of members
//! that died, the subscriptions of providers that are gone, events that are old enough to go.
//!
//! What this provider stores rings the bell; what others store the watcher sees.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::{BackendError, Demand, Ingest, Lease, LeaseToken, Waker};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::bell::Heard;
use crate::sqlite::OpenError;
use crate::sqlite::statements::rows;
use crate::sqlite::transport::clock::now_millis;
use crate::sqlite::transport::connection::{Database, Row, Sync, backend_error};
use crate::sqlite::transport::watcher::Watcher;

/// How deep a claim looks behind keys whose deliveries are leased.
const CLAIM_DEPTH: i64 = 10_000;
/// Time between two looks for old events, and how many go at a time.
const CLEAN_UP_EVERY: Duration = Duration::from_secs(10);
const CLEAN_UP: usize = 1_000;

#[derive(Debug)]
pub(crate) struct SqliteIngest {
    database: Arc<Database>,
    reader: Connection,
    watcher: Watcher,
    next_care: Instant,
    next_clean_up: Instant,
    /// Ids of the subscriptions, by name.
    subscriptions: HashMap<Arc<str>, i64>,
}

impl SqliteIngest {
    pub(crate) fn new(database: &Arc<Database>) -> Result<Self, OpenError> {
        let now = Instant::now();
        Ok(Self {
            database: Arc::clone(database),
            reader: database.reader()?,
            watcher: Watcher::default(),
            next_care: now,
            next_clean_up: now,
            subscriptions: HashMap::new(),
        })
    }

    fn is_changed(&mut self) -> Result<bool, BackendError> {
        self.watcher.is_changed(&self.reader).map_err(|error| backend_error(&error))
    }

    /// The subscriptions that have something ready, of those that there is room for.
    fn ready<'a>(&mut self, demand: &'a [Demand]) -> rusqlite::Result<Vec<(i64, &'a Demand)>> {
        let mut ready = Vec::new();
        for demand in demand {
            let Some(id) = self.find(&demand.subscription)? else { continue };
            let mut statement = self.reader.prepare_cached(&self.database.sql.ready)?;
            if statement.exists([id])? {
                ready.push((id, demand));
            }
        }
        Ok(ready)
    }

    fn find(&mut self, name: &Arc<str>) -> rusqlite::Result<Option<i64>> {
        if let Some(id) = self.subscriptions.get(name) {
            return Ok(Some(*id));
        }
        let Some(instance) = self.database.served.lock().get(name).cloned() else { return Ok(None) };
        let mut statement = self.reader.prepare_cached(&self.database.sql.subscription)?;
        let known = params![self.database.group, name, instance];
        let id: Option<i64> = statement.query_row(known, |row| row.get(0)).optional()?;
        if let Some(id) = id {
            self.subscriptions.insert(Arc::clone(name), id);
        }
        Ok(id)
    }

    fn claim(&self, ready: &[(i64, &Demand)]) -> Result<Vec<Lease>, BackendError> {
        let database = &*self.database;
        let claimed = database.write(Sync::Later, |transaction| {
            let mut claimed = Vec::new();
            for (id, demand) in ready {
                claim(database, transaction, *id, demand, &mut claimed)?;
            }
            Ok(claimed)
        })?;
        let mut held = database.leases.lock();
        held.extend(claimed.iter().map(|(row, lease)| (lease.token.0, *row)));
        Ok(claimed.into_iter().map(|(_, lease)| lease).collect())
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
        let millis = now_millis();
        database
            .write(Sync::Later, |transaction| transaction.prepare_cached(&database.sql.rescue)?.execute([millis]))?;
        let mut gone = self.reader.prepare_cached(&database.sql.gone).map_err(|error| backend_error(&error))?;
        if gone.exists([millis]).map_err(|error| backend_error(&error))? {
            database.write(Sync::Later, |transaction| {
                let mut statement = transaction.prepare_cached(&database.sql.gone)?;
                let ids = statement.query_map([millis], |row| row.get(0))?.collect::<rusqlite::Result<Vec<i64>>>()?;
                ids.into_iter().try_for_each(|id| database.forget(transaction, id))
            })?;
        }
        drop(gone);
        if now >= self.next_clean_up {
            self.forget_unused()?;
            // What has piled up goes batch by batch, with claims in between.
            if self.clean_up()? {
                self.next_care = now;
            } else {
                self.next_clean_up = now + CLEAN_UP_EVERY.min(database.idle_expiry);
            }
        }
        Ok(())
    }

    fn measure_backlog(&self) -> Result<(), BackendError> {
        self.database.backlog.look(|max| {
            let is_full = self.reader.prepare_cached(&self.database.sql.is_full);
            is_full.and_then(|mut it| it.query_row([max], |row| row.get(0))).map_err(|error| backend_error(&error))
        })
    }

    /// Removes the subscriptions that nobody has used for long.
    fn forget_unused(&self) -> Result<(), BackendError> {
        let database = &*self.database;
        let Some(since) = SystemTime::now().checked_sub(database.idle_expiry) else { return Ok(()) };
        let since = rows::time_text(since);
        let unused = (|| {
            let mut statement = self.reader.prepare_cached(&database.sql.unused)?;
            statement.exists([&since])
        })();
        if !unused.map_err(|error| backend_error(&error))? {
            return Ok(());
        }
        database.write(Sync::Later, |transaction| {
            let mut statement = transaction.prepare_cached(&database.sql.unused)?;
            let columns = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            let unused: Vec<(i64, String, String)> = statement.query_map([&since], columns)?.collect::<Result<_, _>>()?;
            for (id, group, name) in &unused {
                tracing::warn!(group, name, idle_expiry = ?database.idle_expiry, "nobody used a subscription: it is removed");
                database.forget(transaction, *id)?;
            }
            database.count(transaction, "subscriptions_expired", unused.len() as i64).map(drop)
        })
    }

    /// Removes old events, one batch of them. True if there may be more.
    fn clean_up(&self) -> Result<bool, BackendError> {
        let database = &*self.database;
        let Some(oldest) = SystemTime::now().checked_sub(database.retention) else { return Ok(false) };
        let oldest = rows::time_text(oldest);
        let expired = (|| {
            let mut statement = self.reader.prepare_cached(&database.sql.expired)?;
            statement.query_map(params![oldest, CLEAN_UP as i64], rows::id)?.collect::<rusqlite::Result<Vec<_>>>()
        })();
        let expired = expired.map_err(|error| backend_error(&error))?;
        if expired.is_empty() {
            return Ok(false);
        }
        database.write(Sync::Later, |transaction| {
            let mut dead = 0;
            for id in &expired {
                dead += database.delete(transaction, id)?.1;
            }
            if dead > 0 {
                tracing::warn!(dead, retention = ?database.retention, "dead letters went with their events");
                database.count(transaction, "dead_letters_expired", dead)?;
            }
            Ok(())
        })?;
        Ok(expired.len() == CLEAN_UP)
    }
}

/// Claims deliveries of one subscription, as many as there is room for.
fn claim(
    database: &Database,
    transaction: &Transaction<'_>,
    subscription: i64,
    demand: &Demand,
    claimed: &mut Vec<(Row, Lease)>,
) -> rusqlite::Result<()> {
    let mut select = transaction.prepare_cached(&database.sql.claim)?;
    let wanted = demand.deliveries as i64;
    let found = select
        .query_map(params![subscription, wanted, wanted + CLAIM_DEPTH], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, row.get::<_, u32>(2)?, rows::event(row, 3)))
        })?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    if found.is_empty() {
        return Ok(());
    }
    let count = found.len() as i64;
    let last = database.count(transaction, "token", count)?;
    let first = last - count + 1;
    let (asked, until) = (Instant::now(), now_millis() + database.lease_millis());
    let began = rows::time_text(SystemTime::now());
    let mut lease = transaction.prepare_cached(&database.sql.lease)?;
    let mut begin = transaction.prepare_cached(&database.sql.begin)?;
    let mut unreadable = BTreeSet::new();
    for (token, (position, suspect, crashes, event)) in (first..).zip(found) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                // Somebody has inserted what is no event: it may not stand in the way of the others.
                tracing::warn!(position, %error, "a row of the events' table is no event");
                let mut bury = transaction.prepare_cached(&database.sql.unreadable)?;
                bury.execute(params![position, subscription, error.to_string(), began])?;
                unreadable.insert(position);
                continue;
            }
        };
        lease.execute(params![position, subscription, token, database.member, until])?;
        begin.execute(params![position, began])?;
        let leased = Lease::new(LeaseToken(token as u64), Arc::clone(&demand.subscription), event).asked_at(asked);
        let leased = if suspect { leased.suspected(crashes) } else { leased };
        claimed.push((Row { position, subscription }, leased));
    }
    database.refresh(transaction, &unreadable)
}

impl Ingest for SqliteIngest {
    fn receive(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        let deadline = Instant::now() + wait;
        // A subscription may have been removed and made again.
        self.subscriptions.retain(|name, _| demand.iter().any(|demand| demand.subscription == *name));
        loop {
            self.care()?;
            self.measure_backlog()?;
            // Before the look at what is ready, so that what comes after that is noticed.
            self.is_changed()?;
            let ready = self.ready(demand).map_err(|error| backend_error(&error))?;
            if !ready.is_empty() {
                let leases = self.claim(&ready)?;
                if !leases.is_empty() {
                    self.watcher.found();
                    return Ok(leases);
                }
            }
            loop {
                let now = Instant::now();
                if now >= deadline {
                    return Ok(Vec::new());
                }
                match self.database.bell.wait((now + self.watcher.pause()).min(deadline).min(self.next_care.max(now))) {
                    Heard::Woken => return Ok(Vec::new()),
                    Heard::Stored => break,
                    Heard::Nothing => {}
                }
                if Instant::now() >= self.next_care || self.is_changed()? {
                    break;
                }
            }
        }
    }

    fn waker(&self) -> Option<Waker> {
        let database = Arc::clone(&self.database);
        Some(Arc::new(move || database.bell.wake()))
    }
}
