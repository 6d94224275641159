//! The chores of a provider, between its claims: due retries, the backlog, expired subscriptions and dead letters, idle consumers,
//! trimming, and the check for losses.

mod losses;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::BackendError;
use redis::Value;

use crate::publish::BacklogLimit;
use crate::scripts::{
    CHECK_BACKLOG, Layout, PURGE_DEAD_LETTERS, REMOVE_CONSUMERS, REMOVE_SUBSCRIPTIONS, earliest, entries, first_open,
    fixed, flag, latest, millis, number, since_epoch,
};
use crate::settings::Redis;
use crate::settle::StoredLetter;
use crate::subscriptions::{LocalSubscriptions, SubscriptionRecord};
use crate::transport::Link;
use losses::LossCheck;

/// The time between two clean-ups.
const CLEAN_UP_EVERY: Duration = Duration::from_secs(10);
/// The time between two measurements of the backlog, and between two polls for due retries, which are late by up to this time.
const POLL_EVERY: Duration = Duration::from_secs(1);
/// The most retries of one poll.
const DUE: i64 = 100;
/// A consumer that is idle for this many leases and holds nothing is removed.
const REMOVE_AFTER: u32 = 10;
/// The most entries, and dead letters, that one clean-up looks at.
const LOOK: usize = 1_000;

#[derive(Debug)]
pub(crate) struct Housekeeping {
    settings: Arc<Redis>,
    layout: Arc<Layout>,
    local: Arc<LocalSubscriptions>,
    backlog: Arc<BacklogLimit>,
    losses: LossCheck,
    next_clean_up: Instant,
    next_poll: Instant,
    next_removal: Instant,
}

impl Housekeeping {
    pub(crate) fn new(
        settings: &Arc<Redis>,
        layout: &Arc<Layout>,
        local: &Arc<LocalSubscriptions>,
        backlog: &Arc<BacklogLimit>,
    ) -> Self {
        let now = Instant::now();
        Self {
            settings: Arc::clone(settings),
            layout: Arc::clone(layout),
            local: Arc::clone(local),
            backlog: Arc::clone(backlog),
            losses: LossCheck::new(layout, local, settings.lease_time),
            next_clean_up: now,
            next_poll: now,
            next_removal: now,
        }
    }

    /// The time of the next chore.
    pub(crate) fn next(&self) -> Instant {
        self.next_clean_up.min(self.next_poll).min(self.next_removal).min(self.losses.next())
    }

    pub(crate) fn check_losses(&mut self, link: &mut Link) -> Result<(), BackendError> {
        self.losses.check(link)
    }

    pub(crate) fn check_losses_soon(&mut self) {
        self.losses.check_soon();
    }

    /// Runs the chores that are due, except the check for losses, which follows the claims.
    pub(crate) fn run(&mut self, link: &mut Link) -> Result<(), BackendError> {
        let now = Instant::now();
        if now >= self.next_poll {
            self.next_poll = now + POLL_EVERY;
            self.poll(link)?;
        }
        let idle = self.settings.lease_time.saturating_mul(REMOVE_AFTER);
        if now >= self.next_removal {
            self.next_removal = now + idle;
            self.layout.run(link, &REMOVE_CONSUMERS, &[millis(idle)])?;
        }
        if now >= self.next_clean_up {
            self.next_clean_up = now + CLEAN_UP_EVERY.min(self.settings.idle_expiry);
            self.expire_subscriptions(link)?;
            self.expire_dead_letters(link)?;
            self.trim(link)?;
        }
        Ok(())
    }

    /// Measures the backlog, and redelivers due retries of the local subscriptions.
    fn poll(&mut self, link: &mut Link) -> Result<(), BackendError> {
        let xgroups = self.local.xgroups();
        let has_limit = self.backlog.max > 0;
        if xgroups.is_empty() && !has_limit {
            return Ok(());
        }
        let due = DUE.to_string();
        let mut arguments = vec![flag(has_limit), &due];
        arguments.extend(xgroups.iter().map(|it| &**it));
        let [backlog, done] = fixed(self.layout.run(link, &CHECK_BACKLOG, &arguments)?)?;
        self.backlog.measured(number(backlog)?.unsigned_abs());
        if number(done)? >= DUE {
            // More may be due.
            self.next_poll = Instant::now();
        }
        Ok(())
    }

    /// Removes subscriptions that no instance has served for `idle_expiry`, and those whose provider is gone.
    fn expire_subscriptions(&mut self, link: &mut Link) -> Result<(), BackendError> {
        let (layout, idle_expiry) = (&self.layout, self.settings.idle_expiry);
        let hash = |name: &str| redis::cmd("HGETALL").arg(layout.key(name)).to_owned();
        let records: HashMap<String, String> = link.call(|it| hash("subscriptions").query(it))?;
        let used: HashMap<String, u64> = link.call(|it| hash("used").query(it))?;
        let now = since_epoch(SystemTime::now());
        for (xgroup, record) in &records {
            let owner = serde_json::from_str::<SubscriptionRecord>(record).map(|it| it.owner).unwrap_or_default();
            let boot = layout.key_of("boot", &owner);
            let is_gone = !owner.is_empty() && !link.call(|it| redis::cmd("EXISTS").arg(boot).query::<bool>(it))?;
            let is_unused = used.get(xgroup).is_some_and(|at| Duration::from_millis(*at) + idle_expiry < now);
            if is_unused {
                tracing::warn!(
                    subscription = xgroup,
                    ?idle_expiry,
                    "a subscription that no instance serves is removed"
                );
                self.count_expired(link, "subscriptions", 1)?;
            }
            if is_gone || is_unused {
                layout.run(link, &REMOVE_SUBSCRIPTIONS, &[xgroup])?;
            }
        }
        Ok(())
    }

    fn count_expired(&self, link: &mut Link, field: &str, count: i64) -> Result<(), BackendError> {
        let key = self.layout.key("expired");
        link.call(|it| redis::cmd("HINCRBY").arg(key).arg(field).arg(count).query(it))
    }

    /// Removes dead letters of this group that are older than `retention`.
    fn expire_dead_letters(&mut self, link: &mut Link) -> Result<(), BackendError> {
        let (layout, group, retention) = (&self.layout, &self.settings.consumer_group, self.settings.retention);
        let of_group = layout.key_of("letters:of", group);
        let oldest: Vec<u64> = link.call(|it| redis::cmd("ZRANGE").arg(of_group).arg(0).arg(LOOK - 1).query(it))?;
        if oldest.is_empty() {
            return Ok(());
        }
        let letters: Vec<Option<String>> =
            link.call(|it| redis::cmd("HMGET").arg(layout.key("letters")).arg(&oldest).query(it))?;
        let is_old = |text: &String| {
            serde_json::from_str::<StoredLetter>(text)
                .is_ok_and(|letter| SystemTime::from(letter.dead_at) + retention < SystemTime::now())
        };
        let old = oldest.iter().zip(&letters).filter(|(_, letter)| letter.as_ref().is_some_and(is_old));
        let mut arguments = vec![group.clone()];
        arguments.extend(old.map(|(number, _)| number.to_string()));
        if arguments.len() == 1 {
            return Ok(());
        }
        tracing::warn!(dead_letters = arguments.len() - 1, ?retention, "dead letters past their retention are removed");
        let purged = number(layout.run(link, &PURGE_DEAD_LETTERS, &arguments)?)?;
        self.count_expired(link, "dead_letters", purged)
    }

    /// Removes entries that every subscription has acknowledged, if they are too old or too many; and old ids of failed events.
    fn trim(&mut self, link: &mut Link) -> Result<(), BackendError> {
        let (layout, max_len) = (&self.layout, self.settings.max_len);
        let too_old = since_epoch(SystemTime::now()).saturating_sub(self.settings.retention);
        let (failed, seconds) = (layout.key("failed"), too_old.as_secs());
        link.call(|it| redis::cmd("ZREMRANGEBYSCORE").arg(failed).arg("-inf").arg(seconds).query::<()>(it))?;
        for stream in &layout.streams {
            let open = first_open(link, stream)?;
            let mut before = format!("{}-0", too_old.as_millis());
            let length: usize = link.call(|it| redis::cmd("XLEN").arg(stream).query(it))?;
            let max_len = max_len.div_ceil(layout.streams.len() as u64);
            let surplus = length.saturating_sub(max_len.try_into().unwrap_or(usize::MAX));
            if max_len > 0 && surplus > 0 {
                let look = surplus.min(LOOK) + 1;
                let oldest: Value = link
                    .call(|it| redis::cmd("XRANGE").arg(stream).arg("-").arg("+").arg("COUNT").arg(look).query(it))?;
                if let Some((first_to_stay, _)) = entries(oldest)?.pop() {
                    before = latest(before, first_to_stay);
                }
            }
            let before = open.map_or(before.clone(), |open| earliest(before, open));
            let removed: usize = link.call(|it| redis::cmd("XTRIM").arg(stream).arg("MINID").arg(before).query(it))?;
            if removed >= LOOK {
                // More may be removable.
                self.next_clean_up = Instant::now();
            }
        }
        Ok(())
    }
}
