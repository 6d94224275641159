//! The chores of a provider, between its claims: due retries, the backlog, expired subscriptions and dead letters, idle consumers,
//! trimming, and the check for losses.

mod losses;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::BackendError;
use eventbroker_bridge_kit::dead_letter::StoredDeadLetter;

use crate::publish::BacklogLimit;
use crate::scripts::{
    CHECK_BACKLOG, Client, Entry, PURGE_DEAD_LETTERS, REMOVE_CONSUMERS, REMOVE_SUBSCRIPTIONS, earliest, first_open,
    flag, latest, millis, since_epoch,
};
use crate::settings::Redis;
use crate::subscriptions::{LocalSubscriptions, SubscriptionRecord};
use losses::LossCheck;

/// The time between two clean-ups.
const CLEAN_UP_EVERY: Duration = Duration::from_secs(10);
/// The time between two measurements of the backlog, and between two polls for due retries, which are late by up to this time.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// The most retries of one poll.
const DUE: u64 = 100;
/// A consumer that is idle for this many leases and holds nothing is removed.
const REMOVE_AFTER: u32 = 10;
/// The most entries, and the most dead letters, that one clean-up reads.
const CLEAN_UP_BATCH: usize = 1_000;

pub(crate) struct Housekeeping {
    settings: Arc<Redis>,
    local: Arc<LocalSubscriptions>,
    backlog: Arc<BacklogLimit>,
    losses: LossCheck,
    next_clean_up: Instant,
    next_poll: Instant,
    next_removal: Instant,
}

impl Housekeeping {
    pub(crate) fn new(settings: Arc<Redis>, local: Arc<LocalSubscriptions>, backlog: Arc<BacklogLimit>) -> Self {
        let losses = LossCheck::new(Arc::clone(&local), settings.lease_time);
        let (next_clean_up, next_poll, next_removal) = (Instant::now(), Instant::now(), Instant::now());
        Self { settings, local, backlog, losses, next_clean_up, next_poll, next_removal }
    }

    /// The time of the next chore.
    pub(crate) fn next(&self) -> Instant {
        self.next_clean_up.min(self.next_poll).min(self.next_removal).min(self.losses.next)
    }

    pub(crate) fn check_losses(&mut self, client: &mut Client) -> Result<(), BackendError> {
        self.losses.check(client)
    }

    pub(crate) fn check_losses_soon(&mut self) {
        self.losses.next = Instant::now();
    }

    /// Runs the chores that are due, except the check for losses, which follows the claims.
    pub(crate) fn run(&mut self, client: &mut Client) -> Result<(), BackendError> {
        let now = Instant::now();
        if now >= self.next_poll {
            self.next_poll = now + POLL_EVERY;
            self.poll(client)?;
        }
        let idle = self.settings.lease_time.saturating_mul(REMOVE_AFTER);
        if now >= self.next_removal {
            self.next_removal = now + idle;
            client.run::<()>(&REMOVE_CONSUMERS, &[millis(idle)])?;
        }
        if now >= self.next_clean_up {
            self.next_clean_up = now + CLEAN_UP_EVERY.min(self.settings.idle_expiry);
            self.expire_subscriptions(client)?;
            self.expire_dead_letters(client)?;
            self.trim(client)?;
        }
        Ok(())
    }

    /// Measures the backlog, and redelivers due retries of the local subscriptions.
    fn poll(&mut self, client: &mut Client) -> Result<(), BackendError> {
        let xgroups = self.local.xgroups();
        let has_limit = self.backlog.max > 0;
        if xgroups.is_empty() && !has_limit {
            return Ok(());
        }
        let due = DUE.to_string();
        let mut arguments = vec![flag(has_limit), &due];
        arguments.extend(xgroups.iter().map(|it| &**it));
        let (backlog, done): (u64, u64) = client.run(&CHECK_BACKLOG, &arguments)?;
        self.backlog.measured(backlog);
        if done >= DUE {
            // More may be due.
            self.next_poll = Instant::now();
        }
        Ok(())
    }

    /// Removes subscriptions that no instance has served for `idle_expiry`, and those whose provider is gone.
    fn expire_subscriptions(&mut self, client: &mut Client) -> Result<(), BackendError> {
        let (layout, idle_expiry) = (Arc::clone(&client.layout), self.settings.idle_expiry);
        let records: HashMap<String, String> = client.query(redis::cmd("HGETALL").arg(layout.key("subscriptions")))?;
        let used: HashMap<String, u64> = client.query(redis::cmd("HGETALL").arg(layout.key("used")))?;
        let now = since_epoch(SystemTime::now());
        for (xgroup, record) in &records {
            let owner = serde_json::from_str::<SubscriptionRecord>(record).map(|it| it.owner).unwrap_or_default();
            let boot = layout.key_of("boot", &owner);
            let is_gone = !owner.is_empty() && !client.query::<bool>(redis::cmd("EXISTS").arg(boot))?;
            let is_unused = used.get(xgroup).is_some_and(|at| Duration::from_millis(*at) + idle_expiry < now);
            if is_unused {
                tracing::warn!(
                    subscription = xgroup,
                    ?idle_expiry,
                    "a subscription that no instance serves is removed"
                );
                count_expired(client, "subscriptions", 1)?;
            }
            if is_gone || is_unused {
                client.run::<()>(&REMOVE_SUBSCRIPTIONS, &[xgroup])?;
            }
        }
        Ok(())
    }

    /// Removes dead letters of this group that are older than `retention`.
    fn expire_dead_letters(&mut self, client: &mut Client) -> Result<(), BackendError> {
        let (group, retention) = (&self.settings.consumer_group, self.settings.retention);
        let of_group = client.layout.key_of("letters:of", group);
        let oldest: Vec<u64> = client.query(redis::cmd("ZRANGE").arg(of_group).arg(0).arg(CLEAN_UP_BATCH - 1))?;
        if oldest.is_empty() {
            return Ok(());
        }
        let letters: Vec<Option<String>> =
            client.query(redis::cmd("HMGET").arg(client.layout.key("letters")).arg(&oldest))?;
        let is_old = |text: &String| {
            serde_json::from_str::<StoredDeadLetter>(text)
                .is_ok_and(|letter| SystemTime::from(letter.dead_at) + retention < SystemTime::now())
        };
        let old = oldest.iter().zip(&letters).filter(|(_, letter)| letter.as_ref().is_some_and(is_old));
        let mut arguments = vec![group.clone()];
        arguments.extend(old.map(|(number, _)| number.to_string()));
        if arguments.len() == 1 {
            return Ok(());
        }
        tracing::warn!(dead_letters = arguments.len() - 1, ?retention, "dead letters past their retention are removed");
        let purged = client.run(&PURGE_DEAD_LETTERS, &arguments)?;
        count_expired(client, "dead_letters", purged)
    }

    /// Removes entries that every subscription has acknowledged, if they are too old or too many; and old ids of failed events.
    fn trim(&mut self, client: &mut Client) -> Result<(), BackendError> {
        let (layout, max_len) = (Arc::clone(&client.layout), self.settings.max_len);
        let too_old = since_epoch(SystemTime::now()).saturating_sub(self.settings.retention);
        let (failed, seconds) = (layout.key("failed"), too_old.as_secs());
        client.query::<()>(redis::cmd("ZREMRANGEBYSCORE").arg(failed).arg("-inf").arg(seconds))?;
        for stream in &layout.streams {
            let open = first_open(client, stream)?;
            let mut before = format!("{}-0", too_old.as_millis());
            let length: usize = client.query(redis::cmd("XLEN").arg(stream))?;
            let max_len = max_len.div_ceil(layout.streams.len() as u64);
            let surplus = length.saturating_sub(max_len.try_into().unwrap_or(usize::MAX));
            if max_len > 0 && surplus > 0 {
                let count = surplus.min(CLEAN_UP_BATCH) + 1;
                let range = ("-", "+", "COUNT", count);
                let mut oldest: Vec<Entry> = client.query(redis::cmd("XRANGE").arg(stream).arg(range))?;
                if let Some((first_to_stay, _)) = oldest.pop() {
                    before = latest(before, first_to_stay);
                }
            }
            let before = open.map_or(before.clone(), |open| earliest(before, open));
            let removed: usize = client.query(redis::cmd("XTRIM").arg(stream).arg("MINID").arg(before))?;
            if removed >= CLEAN_UP_BATCH {
                // More may be removable.
                self.next_clean_up = Instant::now();
            }
        }
        Ok(())
    }
}

/// Counts subscriptions or dead letters that have expired.
fn count_expired(client: &mut Client, field: &str, count: i64) -> Result<(), BackendError> {
    let key = client.layout.key("expired");
    client.query(redis::cmd("HINCRBY").arg(key).arg(field).arg(count))
}
