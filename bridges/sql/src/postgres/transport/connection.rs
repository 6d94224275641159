//! One provider's hold on the database: a connection for each of its parts, and who is told when something was stored.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, SystemTime};

use eventbroker::provider::BackendError;
use parking_lot::Mutex;
use postgres::Error;

use crate::backlog::Backlog;
use crate::bell::Bell;
use crate::names::TableName;
use crate::postgres::Postgres;
use crate::postgres::statements::Statements;
use crate::postgres::transport::address::Address;
use crate::postgres::transport::link::{Link, Session, Sync};
use crate::postgres::transport::listener::Listener;

/// The longest time that is put into a statement: PostgreSQL's own bounds are not far above.
const FOR_EVER: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
/// Rows that are forgotten in one transaction.
const FORGET: i32 = 5_000;

/// What all parts of a provider share.
#[derive(Debug)]
pub(crate) struct Database {
    pub(crate) address: Arc<Address>,
    pub(crate) sql: Arc<Statements>,
    pub(crate) group: String,
    pub(crate) lease_time: Duration,
    pub(crate) retention: Duration,
    pub(crate) idle_expiry: Duration,
    pub(crate) backlog: Backlog,
    pub(crate) poll_interval: Duration,
    pub(crate) channel: String,
    /// Tells this provider from all others.
    pub(crate) member: String,
    /// The subscriptions that this provider serves, by name, and the instance that each belongs to.
    pub(crate) served: Mutex<HashMap<Arc<str>, String>>,
    /// What the leases that are held belong to.
    pub(crate) leases: Mutex<HashMap<u64, Row>>,
    /// Number of the next lease. Together with `member` it is that of no other.
    pub(crate) next_token: AtomicU64,
    /// A new subscription may still miss events of transactions that were open when it was made.
    pub(crate) catching_up: AtomicBool,
    pub(crate) bells: Arc<Bells>,
    listener: OnceLock<Listener>,
    /// A notification is under way.
    notifying: Arc<AtomicBool>,
    /// Events out.
    pub(crate) out: Link,
    /// Deliveries in.
    pub(crate) claims: Link,
    /// Verdicts back.
    pub(crate) verdicts: Link,
    /// Looking up, and what operators ask for.
    pub(crate) lookups: Link,
}

/// A row of the deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) position: i64,
    pub(crate) subscription: i64,
}

/// Those in this process who want to hear when something was stored.
#[derive(Debug, Default)]
pub(crate) struct Bells {
    bells: Mutex<Vec<Weak<Bell>>>,
    /// Others than this provider want to hear too.
    pub(crate) others: AtomicBool,
}

impl Bells {
    pub(crate) fn add(&self) -> Arc<Bell> {
        let bell = Arc::<Bell>::default();
        let mut bells = self.bells.lock();
        bells.retain(|bell| bell.strong_count() > 0);
        bells.push(Arc::downgrade(&bell));
        bell
    }

    pub(crate) fn ring(&self) {
        self.bells.lock().iter().filter_map(Weak::upgrade).for_each(|bell| bell.stored());
    }
}

impl Database {
    pub(crate) fn new(
        settings: &Postgres,
        address: &Arc<Address>,
        table: &TableName,
        lookups: Link,
    ) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let random = RandomState::new().hash_one((pid, now));
        let link = |name, sync| Link::start(name, address, sync);
        Ok(Self {
            sql: Arc::new(Statements::new(table)),
            group: settings.consumer_group.clone(),
            lease_time: settings.lease_time,
            retention: settings.retention,
            idle_expiry: settings.idle_expiry,
            backlog: Backlog::new(settings.max_backlog),
            poll_interval: settings.poll_interval,
            channel: settings.channel.clone(),
            member: format!("{pid}-{number}-{random:016x}"),
            served: Mutex::default(),
            leases: Mutex::default(),
            next_token: AtomicU64::new(1),
            // Another instance may have left something.
            catching_up: AtomicBool::new(true),
            bells: Arc::default(),
            listener: OnceLock::new(),
            notifying: Arc::default(),
            out: link("out", Sync::Full)?,
            // A claim or a verdict that a crash of the server undoes is made again.
            claims: link("in", Sync::Later)?,
            verdicts: link("back", Sync::Later)?,
            lookups,
            address: Arc::clone(address),
        })
    }

    /// From now on the bells ring for what others store, too.
    pub(crate) fn listen(&self) {
        self.listener.get_or_init(|| Listener::start(&self.address, &self.channel, &self.sql.events, &self.bells));
    }

    /// Something was stored or given back: tells those who wait, here and elsewhere. What is told elsewhere is one notification for all
    /// that happens until it is sent, and none if nobody is there.
    pub(crate) fn stored(&self) {
        self.bells.ring();
        if !self.bells.others.load(Ordering::Relaxed) || self.notifying.swap(true, Ordering::SeqCst) {
            return;
        }
        let notifying = Arc::clone(&self.notifying);
        let (channel, payload) = (self.channel.clone(), self.sql.events.clone());
        self.claims.hint(move |session| {
            notifying.store(false, Ordering::SeqCst);
            session.map_or(Ok(()), |session| notify(session, &channel, &payload))
        });
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get() {
            listener.stop();
            // It sees that sooner if it hears something.
            let (channel, payload) = (self.channel.clone(), format!("{} left", self.sql.events));
            self.claims.hint(move |session| session.map_or(Ok(()), |session| notify(session, &channel, &payload)));
        }
    }
}

/// Tells every instance.
pub(crate) fn notify(session: &mut Session, channel: &str, payload: &str) -> Result<(), Error> {
    session.execute("SELECT pg_notify($1, $2)", &[&channel, &payload]).map(drop)
}

/// Removes a subscription, and what is open or dead of it.
pub(crate) fn forget(session: &mut Session, sql: &Statements, id: i64) -> Result<(), Error> {
    session.execute(&sql.unsubscribe, &[&id])?;
    loop {
        let rows = session.query(&sql.forget, &[&id, &FORGET])?;
        if rows.first().map_or(Ok(0), |row| row.try_get::<_, i64>(0))? == 0 {
            return Ok(());
        }
    }
}

/// Seconds, as `make_interval` takes them.
pub(crate) fn seconds(time: Duration) -> f64 {
    time.min(FOR_EVER).as_secs_f64()
}

/// A row that is not what it should be: somebody has changed it.
pub(crate) fn unreadable(problem: &crate::columns::Unreadable) -> BackendError {
    BackendError::Unavailable(format!("PostgreSQL: a row can't be read: {problem}"))
}
