//! The subscriptions to the shop's events: an audit log, invalidation of the cache, mail to customers, and an alarm for
//! dead letters.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use eventbroker::error::SubscribeError;
use eventbroker::{Broker, Delivery, HandlerError, RetryPolicy, SubscribeOptions};
use rusqlite::{Connection, params};
use serde::Deserialize;

use super::cache::Cache;
use super::shop::{Order, Product};

/// The names of the subscriptions.
pub(super) const AUDIT: &str = "audit";
pub(super) const CACHE: &str = "cache";
pub(super) const MAILER: &str = "mailer";
pub(super) const ALARM: &str = "alarm";

/// The simulated duration of sending a mail.
const SENDING: Duration = Duration::from_micros(500);

/// The state that the handlers write to.
pub(super) struct Subscribers {
    pub(super) audit: Arc<AuditLog>,
    pub(super) mailer: Arc<Mailer>,
    pub(super) alarms: Arc<AtomicU64>,
}

impl Subscribers {
    pub(super) fn subscribe(broker: &Broker, audit: AuditLog, cache: &Arc<Cache>) -> Result<Self, SubscribeError> {
        let it = Self { audit: Arc::new(audit), mailer: Arc::default(), alarms: Arc::default() };

        // `ordered`: the log is in publish order. SQLite has one writer at a time, so this costs no concurrency.
        let audit = Arc::clone(&it.audit);
        broker.subscribe_with(SubscribeOptions::new("shop.**").name(AUDIT).ordered(), move |delivery| {
            audit.write(delivery)
        })?;

        let cache = Arc::clone(cache);
        broker.subscribe_with(SubscribeOptions::new("shop.products.update").name(CACHE), move |delivery| {
            #[derive(Deserialize)]
            struct Update {
                data: Product,
            }
            let Update { data } = delivery.event().payload_as()?;
            cache.invalidate(data.id, data.version);
            Ok::<_, HandlerError>(())
        })?;

        let mailer = Arc::clone(&it.mailer);
        let patience = RetryPolicy {
            max_retries: 3,
            initial_delay: Duration::from_millis(20),
            max_delay: Duration::from_millis(200),
            ..RetryPolicy::default()
        };
        let options = SubscribeOptions::new("shop.orders.create").name(MAILER).concurrency(4).retry(patience);
        broker.subscribe_with(options, move |delivery| mailer.confirm(delivery))?;

        let alarms = Arc::clone(&it.alarms);
        broker.subscribe_with(SubscribeOptions::new("eventbroker.dead_letter").name(ALARM), move |_| {
            alarms.fetch_add(1, Ordering::Relaxed);
        })?;
        Ok(it)
    }
}

/// The log of all changes: a database of its own with one row per event.
#[derive(Debug)]
pub(super) struct AuditLog {
    connection: Mutex<Connection>,
}

impl AuditLog {
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connection = Connection::open(path)?;
        // The primary key makes a second delivery of an event an error.
        connection.execute_batch(
            "PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL;
             CREATE TABLE audit (event TEXT PRIMARY KEY, type TEXT NOT NULL, clerk TEXT NOT NULL, row TEXT NOT NULL)
                 WITHOUT ROWID;",
        )?;
        Ok(Self { connection: Mutex::new(connection) })
    }

    fn write(&self, delivery: &Delivery<'_>) -> rusqlite::Result<()> {
        let event = delivery.event();
        let clerk = event.metadata().get("user_name").and_then(|name| name.as_str()).unwrap_or_default();
        let row = params![event.id().to_string(), event.event_type().as_str(), clerk, event.payload().as_str()];
        self.with(|sql| sql.execute("INSERT INTO audit VALUES (?1, ?2, ?3, ?4)", row)).map(|_| ())
    }

    /// Reads the number of rows by event type.
    pub(super) fn rows(&self) -> rusqlite::Result<Vec<(String, u64)>> {
        self.with(|sql| {
            let mut statement = sql.prepare("SELECT type, count(*) FROM audit GROUP BY type")?;
            statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, u32>(1)?.into())))?.collect()
        })
    }

    fn with<T>(&self, run: impl FnOnce(&Connection) -> T) -> T {
        run(&self.connection.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A mail server that fails at times. The order's number decides which attempts fail, so every run fails alike.
#[derive(Debug, Default)]
pub(super) struct Mailer {
    pub(super) sent: AtomicU64,
}

impl Mailer {
    fn confirm(&self, delivery: &Delivery<'_>) -> Result<(), HandlerError> {
        let order: Order = delivery.event().payload_as()?;
        std::thread::sleep(SENDING);
        match order.id % 400 {
            // 2 of 400 mails become dead letters.
            111 => return Err(HandlerError::permanent(format_args!("{}: no such mailbox", order.email))),
            222 => return Err(HandlerError::retry("the mail server of example.org does not answer")),
            // 1 of 8 needs a second attempt, 1 of 40 a third.
            number if number % 8 == 3 && delivery.attempt() == 1 => {
                return Err(HandlerError::retry("connection reset"));
            }
            number if number % 40 == 7 && delivery.attempt() <= 2 => {
                return Err(HandlerError::retry("try again later"));
            }
            _ => {}
        }
        self.sent.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}
