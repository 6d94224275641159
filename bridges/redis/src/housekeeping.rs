//! What nobody else sees to: retries that are due, subscriptions that nobody serves, dead letters that are too old, entries that everybody has
//! handled, and whether so much is unread that nothing more is stored.

pub(crate) mod losses;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::BackendError;
use redis::Value;

use crate::query::store;
use crate::scripts;
use crate::scripts::entry::{earliest, entries, latest, list, number, since_epoch, unexpected};
use crate::settle::outcome::Letter;
use crate::subscriptions::Info;
use crate::transport::link::{Database, Link, millis};

/// Time between two looks for what is old.
const CLEAN_UP_EVERY: Duration = Duration::from_secs(10);
/// Time between two looks at how much is unread, and for retries that are due: so late they come.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Retries that one script makes deliveries again of.
const DUE: i64 = 100;
/// So many leases after its last sign of life, a consumer that holds nothing is removed.
const REAP_AFTER: u32 = 10;
/// Entries that are looked at to find out which may go.
const LOOK: usize = 1_000;

#[derive(Debug)]
pub(crate) struct Upkeep {
    database: Arc<Database>,
    next_clean_up: Instant,
    next_look: Instant,
    next_reap: Instant,
}

impl Upkeep {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        let now = Instant::now();
        Self { database: Arc::clone(database), next_clean_up: now, next_look: now, next_reap: now }
    }

    /// When there is something to see to again.
    pub(crate) fn next(&self) -> Instant {
        self.next_clean_up.min(self.next_look).min(self.next_reap)
    }

    pub(crate) fn see_to(&mut self, link: &mut Link) -> Result<(), BackendError> {
        let now = Instant::now();
        if now >= self.next_look {
            self.next_look = now + LOOK_EVERY;
            self.look(link)?;
        }
        let unused = self.database.lease_time.saturating_mul(REAP_AFTER);
        if now >= self.next_reap {
            self.next_reap = now + unused;
            link.run(&scripts::REMOVE_CONSUMERS, &[millis(unused).as_bytes()])?;
        }
        if now >= self.next_clean_up {
            self.next_clean_up = now + CLEAN_UP_EVERY.min(self.database.idle_expiry);
            self.clean_up(link)?;
        }
        Ok(())
    }

    /// Looks whether some subscription is so far behind that nothing more is stored (what its pattern does not match counts too until it is read),
    /// and makes deliveries again whose retry is due, of the subscriptions that this provider serves.
    fn look(&mut self, link: &mut Link) -> Result<(), BackendError> {
        let units: Vec<Arc<str>> = self.database.served.lock().values().map(|served| served.unit.clone()).collect();
        let max_backlog = self.database.max_backlog;
        if units.is_empty() && max_backlog == 0 {
            return Ok(());
        }
        let most = DUE.to_string();
        let mut arguments = vec![if max_backlog > 0 { "1" } else { "0" }.as_bytes(), most.as_bytes()];
        arguments.extend(units.iter().map(|unit| unit.as_bytes()));
        let answer = list(link.run(&scripts::CHECK_BACKLOG, &arguments)?)?;
        let [behind, due] = <[Value; 2]>::try_from(answer).map_err(|it| unexpected(&Value::Array(it)))?;
        if max_backlog > 0 {
            self.database.is_full.store(number(behind)?.unsigned_abs() >= max_backlog, Ordering::SeqCst);
        }
        if number(due)? >= DUE {
            // There may be more.
            self.next_look = Instant::now();
        }
        Ok(())
    }

    /// Removes what nobody asks for any more.
    fn clean_up(&mut self, link: &mut Link) -> Result<(), BackendError> {
        let database = Arc::clone(&self.database);
        let (subscriptions, used) = (database.key("subscriptions"), database.key("used"));
        let known: HashMap<String, String> = link.call(|it| redis::cmd("HGETALL").arg(subscriptions).query(it))?;
        let used: HashMap<String, u64> = link.call(|it| redis::cmd("HGETALL").arg(used).query(it))?;
        let now = since_epoch(SystemTime::now());
        for (unit, info) in &known {
            let owner = serde_json::from_str::<Info>(info).map(|info| info.owner).unwrap_or_default();
            let is_gone = !owner.is_empty() && {
                let boot = database.key(&format!("boot:{owner}"));
                !link.call(|connection| redis::cmd("EXISTS").arg(boot).query::<bool>(connection))?
            };
            let last_use = used.get(unit).map(|at| Duration::from_millis(*at));
            let is_unused = last_use.is_some_and(|at| at + database.idle_expiry < now);
            if is_unused {
                tracing::warn!(unit, idle_expiry = ?database.idle_expiry, "nobody used a subscription: it is removed");
                let expired = database.key("expired");
                link.call(|it| redis::cmd("HINCRBY").arg(expired).arg("subscriptions").arg(1).query::<()>(it))?;
            }
            if is_gone || is_unused {
                link.run(&scripts::REMOVE_SUBSCRIPTIONS, &[unit.as_bytes()])?;
            }
        }
        self.expire_letters(link)?;
        self.trim(link)
    }

    /// Removes dead letters of this group that are too old.
    fn expire_letters(&mut self, link: &mut Link) -> Result<(), BackendError> {
        let database = Arc::clone(&self.database);
        let of_group = database.key(&format!("letters:of:{}", database.group));
        let oldest: Vec<u64> = link.call(|it| redis::cmd("ZRANGE").arg(of_group).arg(0).arg(LOOK - 1).query(it))?;
        if oldest.is_empty() {
            return Ok(());
        }
        let letters: Vec<Option<String>> =
            link.call(|it| redis::cmd("HMGET").arg(database.key("letters")).arg(&oldest).query(it))?;
        let is_old = |text: &String| {
            serde_json::from_str::<Letter>(text)
                .is_ok_and(|letter| SystemTime::from(letter.dead_at) + database.retention < SystemTime::now())
        };
        let old = oldest.iter().zip(&letters).filter(|(_, letter)| letter.as_ref().is_some_and(is_old));
        let old: Vec<String> = old.map(|(number, _)| number.to_string()).collect();
        if old.is_empty() {
            return Ok(());
        }
        tracing::warn!(dead = old.len(), retention = ?database.retention, "dead letters were too old");
        let mut arguments: Vec<&[u8]> = vec![database.group.as_bytes()];
        arguments.extend(old.iter().map(String::as_bytes));
        let gone = number(link.run(&scripts::PURGE_DEAD_LETTERS, &arguments)?)?;
        let expired = database.key("expired");
        link.call(|it| redis::cmd("HINCRBY").arg(expired).arg("dead_letters").arg(gone).query::<()>(it))
    }

    /// Removes entries that everybody has handled, if they are too old or too many.
    fn trim(&mut self, link: &mut Link) -> Result<(), BackendError> {
        let database = Arc::clone(&self.database);
        let too_old = since_epoch(SystemTime::now()).saturating_sub(database.retention);
        let (forgotten, seconds) = (database.key("failed"), too_old.as_secs());
        link.call(|it| redis::cmd("ZREMRANGEBYSCORE").arg(forgotten).arg("-inf").arg(seconds).query::<()>(it))?;
        for stream in &database.streams {
            let handled = store::first_open(link, stream)?;
            let mut before = format!("{}-0", too_old.as_millis());
            let length: usize = link.call(|it| redis::cmd("XLEN").arg(stream).query(it))?;
            let max_len = database.max_len.div_ceil(database.streams.len() as u64);
            let surplus = length.saturating_sub(max_len.try_into().unwrap_or(usize::MAX));
            if max_len > 0 && surplus > 0 {
                let look = surplus.min(LOOK) + 1;
                let oldest: Value = link
                    .call(|it| redis::cmd("XRANGE").arg(stream).arg("-").arg("+").arg("COUNT").arg(look).query(it))?;
                if let Some((first_to_stay, _)) = entries(oldest)?.pop() {
                    before = latest(before, first_to_stay);
                }
            }
            let before = handled.map_or(before.clone(), |handled| earliest(before, handled));
            let gone: usize = link.call(|it| redis::cmd("XTRIM").arg(stream).arg("MINID").arg(before).query(it))?;
            if gone >= LOOK {
                // There may be more.
                self.next_clean_up = Instant::now();
            }
        }
        Ok(())
    }
}
