//! Gives back the deliveries of dead members, and removes expired subscriptions and events.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eventbroker::provider::BackendError;

use crate::backlog::Backlog;
use crate::housekeeping::{CLEAN_UP_BATCH, Schedule};
use crate::member::Member;
use crate::postgres::statements::{Tables, forget, seconds};
use crate::postgres::transport::Notifier;

/// How long after an error living members may take to extend their leases: the pauses of their connections and threads.
const RETURN: Duration = Duration::from_secs(2);

/// The housekeeping of one provider; the ingest runs it.
pub(crate) struct Housekeeping {
    tables: Tables,
    member: Arc<Member>,
    backlog: Arc<Backlog>,
    notifier: Arc<Notifier>,
    /// A new subscription may miss events of transactions that were open when it was registered.
    catching_up: Arc<AtomicBool>,
    pub(crate) schedule: Schedule,
}

impl Housekeeping {
    pub(crate) fn new(
        tables: Tables,
        member: Arc<Member>,
        backlog: Arc<Backlog>,
        notifier: Arc<Notifier>,
        catching_up: Arc<AtomicBool>,
    ) -> Self {
        let schedule = Schedule::new(&member.settings);
        Self { tables, member, backlog, notifier, catching_up, schedule }
    }

    /// After an error: no lease expires before living members could extend theirs, which they could not while the server was away.
    pub(crate) fn postpone(&mut self) {
        self.schedule.postpone(RETURN.max(self.member.settings.lease_time / 2));
    }

    /// Expires leases, and cleans up if it is time for that too.
    pub(crate) fn run(&mut self) -> Result<(), BackendError> {
        self.expire_leases()?;
        if self.schedule.is_clean_up_due() {
            let has_more = self.clean_up()?;
            self.schedule.cleaned_up(has_more);
        }
        Ok(())
    }

    /// Measures the backlog if it is time.
    pub(crate) fn check_backlog(&self) -> Result<(), BackendError> {
        self.backlog.check(|max| {
            self.tables.call(move |session, sql| {
                session.query(&sql.is_full, &[&max])?.first().map_or(Ok(false), |row| row.try_get(0))
            })
        })
    }

    /// Makes deliveries ready whose leases have expired, and removes broadcast subscriptions whose providers send no heartbeat.
    fn expire_leases(&self) -> Result<(), BackendError> {
        let id = self.member.id.clone();
        let has_others = self.tables.call(move |session, sql| {
            session.execute(&sql.expire_leases, &[])?;
            for row in session.query(&sql.expired_broadcasts, &[])? {
                forget(session, sql, row.try_get(0)?)?;
            }
            session.query(&sql.has_other_instances, &[&id])?.first().map_or(Ok(true), |row| row.try_get(0))
        })?;
        self.notifier.set_others(has_others);
        Ok(())
    }

    /// Removes one batch of expired events, unused subscriptions, and deliveries without a subscription. True if there may be more
    /// expired events.
    fn clean_up(&self) -> Result<bool, BackendError> {
        let (retention, idle_expiry) = (self.member.settings.retention, self.member.settings.idle_expiry);
        self.tables.call(move |session, sql| {
            let expired = session.query(&sql.delete_expired, &[&seconds(retention), &(CLEAN_UP_BATCH as i64)])?;
            let counts = expired.first().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
            let (dead, events): (i64, i64) = counts.transpose()?.unwrap_or_default();
            if dead > 0 {
                tracing::warn!(dead, ?retention, "dead letters were removed with their expired events");
                session.execute(&sql.add_to_counter, &[&"dead_letters_expired", &dead])?;
            }
            for row in session.query(&sql.unused_subscriptions, &[&seconds(idle_expiry)])? {
                let (id, group, name): (i64, String, String) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
                tracing::warn!(group, name, ?idle_expiry, "no instance has served a subscription: it is removed");
                forget(session, sql, id)?;
                session.execute(&sql.add_to_counter, &[&"subscriptions_expired", &1_i64])?;
            }
            for row in session.query(&sql.orphaned_subscriptions, &[])? {
                forget(session, sql, row.try_get(0)?)?;
            }
            Ok(events == CLEAN_UP_BATCH as i64)
        })
    }

    /// Brings new subscriptions with a start position the events that were being stored when they were registered.
    pub(crate) fn catch_up(&self) -> Result<(), BackendError> {
        if !self.catching_up.load(Ordering::SeqCst) {
            return Ok(());
        }
        let left = self.tables.call(move |session, sql| {
            session.execute(&sql.record_missed, &[])?;
            // The horizon is read first, so that no subscription counts as caught up whose transactions ended during the search.
            let horizon = session.query(&sql.horizon, &[])?;
            let horizon: Option<String> = horizon.first().map(|row| row.try_get(0)).transpose()?;
            session.execute(&sql.catch_up, &[])?;
            session.query(&sql.end_catch_up, &[&horizon])?.first().map_or(Ok(0_i64), |row| row.try_get(0))
        })?;
        if left == 0 {
            self.catching_up.store(false, Ordering::SeqCst);
        }
        Ok(())
    }
}
