//! What others do to the stream: entries that are gone before a subscription has read them are counted and told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use eventbroker::provider::BackendError;
use redis::Value;

use crate::scripts::entry::{list, number, text, unexpected};
use crate::transport::link::{Database, Link, Served};
use crate::{scripts, subscriptions};

/// What the last looks have told, for the case that the server itself forgets it.
#[derive(Debug)]
pub(crate) struct Watch {
    database: Arc<Database>,
    /// By consumer group and number of the stream.
    seen: HashMap<(String, usize), Seen>,
    next: Instant,
}

#[derive(Debug)]
struct Seen {
    /// Tells the stream from one that comes after it.
    life: String,
    added: i64,
    waiting: i64,
}

impl Watch {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        Self { database: Arc::clone(database), seen: HashMap::new(), next: Instant::now() }
    }

    /// When the next look is due: each quarter of a lease, and sooner if there is a subscription that was never looked at.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Something has happened that makes a look worthwhile.
    pub(crate) fn hurry(&mut self) {
        self.next = Instant::now();
    }

    /// An entry is in hand that may have waited at the last look.
    pub(crate) fn took(&mut self, unit: &str, number: usize) {
        if let Some(seen) = self.seen.get_mut(&(unit.to_owned(), number)) {
            seen.waiting = (seen.waiting - 1).max(0);
        }
    }

    pub(crate) fn look(&mut self, link: &mut Link) -> Result<(), BackendError> {
        let served: Vec<Served> = self.database.served.lock().values().cloned().collect();
        self.seen.retain(|(unit, _), _| served.iter().any(|it| *it.unit == **unit));
        let now = Instant::now();
        let streams = self.database.streams.len();
        if now < self.next && served.len() * streams == self.seen.len() {
            return Ok(());
        }
        self.next = now + self.database.lease_time / 4;
        for it in served {
            for number in 1..=streams {
                if !self.look_at(link, &it.unit, number)? {
                    // Somebody has removed the stream: what is in the new one was not seen by anybody.
                    subscriptions::make(link, &it, true, &["0".to_owned()])?;
                    self.look_at(link, &it.unit, number)?;
                }
            }
        }
        Ok(())
    }

    /// False if there is no stream, or no group.
    fn look_at(&mut self, link: &mut Link, unit: &str, of: usize) -> Result<bool, BackendError> {
        let place = (unit.to_owned(), of);
        let (life, added, waiting) = match self.seen.get(&place) {
            Some(seen) => (seen.life.clone(), seen.added.to_string(), seen.waiting.to_string()),
            None => (String::new(), "0".to_owned(), "0".to_owned()),
        };
        let name = format!("{}-{}", self.database.boot, self.database.next_number());
        let arguments = [unit, &life, &added, &waiting, &name].map(str::as_bytes);
        let stream = self.database.streams[of - 1].clone();
        let answer = list(link.call(|connection| scripts::CHECK_LOSSES.run(connection, &[&stream], &arguments))?)?;
        if answer.is_empty() {
            return Ok(false);
        }
        let [life, added, waiting, lost, unknown] =
            <[Value; 5]>::try_from(answer).map_err(|it| unexpected(&Value::Array(it)))?;
        let (lost, unknown) = (number(lost)?, number(unknown)?);
        let known = if unknown > 0 { "at least" } else { "exactly" };
        if lost > 0 || unknown > 0 {
            tracing::error!(
                stream,
                lost,
                known,
                "data loss: entries of the stream are gone that were not handled; somebody trims or removes them, evicts \
                 them, or the server has lost them"
            );
        }
        let seen = Seen { life: text(life)?, added: number(added)?, waiting: number(waiting)? };
        self.seen.insert(place, seen);
        Ok(true)
    }
}
