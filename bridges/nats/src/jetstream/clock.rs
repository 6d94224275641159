//! The server's clock, read from the times of stored messages.

use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

use super::api::{Result, unavailable};
use super::kv::{CLOCK, KeyValue};
use super::message::{self, Get, StoredMessage};
use crate::transport::Session;

/// How long a reading is extrapolated with the own monotonic clock.
const GOOD_FOR: Duration = Duration::from_secs(60);

/// The server's clock.
pub(crate) struct ServerClock {
    /// The key that this provider writes to read the clock.
    pub(crate) key: String,
    seen: Mutex<Option<Reading>>,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    generation: u64,
    server: SystemTime,
    here: Instant,
}

impl ServerClock {
    pub(crate) fn new(kv: &KeyValue, boot: &str) -> Self {
        Self { key: kv.key(CLOCK, boot), seen: Mutex::default() }
    }

    /// The server's time, if it was read lately in this session.
    pub(crate) fn time(&self, generation: u64) -> Option<SystemTime> {
        let seen = (*self.seen.lock())?;
        let since = seen.here.elapsed();
        (seen.generation == generation && since < GOOD_FOR).then(|| seen.server + since)
    }

    /// Takes a reading from a message that was stored just now.
    pub(crate) fn set(&self, session: &Session, stored: &StoredMessage) {
        let reading = Reading { generation: session.generation, server: stored.stored_at, here: Instant::now() };
        *self.seen.lock() = Some(reading);
    }

    /// Reads the clock: stores a message and returns its time.
    pub(crate) async fn read(&self, session: &Session, kv: &KeyValue) -> Result<SystemTime> {
        let sequence = kv.put(session, &self.key, Vec::new()).await?;
        let stored = message::get(session, &kv.stream, Get::Sequence(sequence)).await?;
        let stored = stored.ok_or_else(|| unavailable("a message that was just stored is not there"))?;
        self.set(session, &stored);
        Ok(stored.stored_at)
    }
}
