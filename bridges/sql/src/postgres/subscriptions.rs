//! Registers and removes subscriptions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use eventbroker::StartPosition;
use eventbroker::provider::{BackendError, Registration};
use postgres::Error;

use crate::member::Member;
use crate::pattern::PatternColumns;
use crate::postgres::statements::{Statements, Tables, Work, columns, forget, seconds, split_time};
use crate::postgres::transport::Session;
use crate::record::SubscriptionRecord;
use crate::subscriptions::REMOVE_AFTER;

/// How long a registration may take, with the deliveries that the subscription has missed.
const BACKFILL_LIMIT: Duration = Duration::from_secs(60);

/// The rows of the subscriptions that this provider serves.
pub(crate) struct Subscriptions {
    pub(crate) tables: Tables,
    pub(crate) member: Arc<Member>,
    /// A new subscription may miss events of transactions that were open when it was registered.
    pub(crate) catching_up: Arc<AtomicBool>,
}

impl Subscriptions {
    /// Registers a subscription. `instance` is the name of this instance.
    pub(crate) fn register(&self, registration: &Registration, instance: &str) -> Result<(), BackendError> {
        let record = SubscriptionRecord::new(registration, &self.member, instance, columns)?;
        if record.name.contains('\0') {
            return Err(BackendError::Refused("name: has a NUL, which PostgreSQL can't store".to_owned()));
        }
        let (instance, alive) = (record.instance.clone(), self.alive());
        let registered = self.tables.call_within(BACKFILL_LIMIT, move |session, sql| {
            session.transaction_within(BACKFILL_LIMIT, |session| write(session, sql, &record, alive))
        })?;
        registered.map_err(BackendError::Refused)?;
        if registration.start != StartPosition::New {
            self.catching_up.store(true, Ordering::SeqCst);
        }
        self.member.subscriptions.insert(&registration.name, instance);
        Ok(())
    }

    /// How long a broadcast subscription is kept without a heartbeat, in seconds.
    fn alive(&self) -> f64 {
        seconds(self.member.settings.lease_time.saturating_mul(REMOVE_AFTER))
    }

    /// Stops serving a subscription. A broadcast that is not durable is removed.
    pub(crate) fn unregister(&self, name: &str) -> Result<(), BackendError> {
        if self.member.subscriptions.instance_of(name).as_deref() == Some(&*self.member.id) {
            self.remove_of(name, &self.member.id)?;
        }
        self.member.subscriptions.remove(name);
        Ok(())
    }

    /// Removes the group's subscription of this name and this instance's durable broadcast. False if there was neither.
    pub(crate) fn remove(&self, name: &str, instance: &str) -> Result<bool, BackendError> {
        let shared = self.remove_of(name, "")?;
        let own = !instance.is_empty() && self.remove_of(name, instance)?;
        Ok(own || shared)
    }

    fn remove_of(&self, name: &str, instance: &str) -> Result<bool, BackendError> {
        let group = self.member.settings.consumer_group.clone();
        let (name, instance) = (name.to_owned(), instance.to_owned());
        self.tables.call(move |session, sql| {
            let known = session.query(&sql.subscription, &[&group, &name, &instance])?;
            known.first().map_or(Ok(false), |row| forget(session, sql, row.try_get(0)?).map(|()| true))
        })
    }

    /// Removes the broadcast subscriptions that only this provider has served.
    pub(crate) fn remove_owned(&self) -> Work {
        let id = self.member.id.clone();
        Box::new(move |session, sql| {
            let owned = session.query(&sql.owned_subscriptions, &[&id])?;
            owned.iter().try_for_each(|row| forget(session, sql, row.try_get(0)?))
        })
    }

    /// Records that the subscriptions are used.
    pub(crate) fn record_use(&self) -> Work {
        let group = self.member.settings.consumer_group.clone();
        let (names, instances) = self.member.subscriptions.all();
        Box::new(move |session, sql| session.execute(&sql.record_use, &[&group, &names, &instances]).map(drop))
    }
}

/// Makes or changes the row of a subscription. The inner error says why it is refused.
fn write(
    session: &mut Session,
    sql: &Statements,
    record: &SubscriptionRecord,
    alive: f64,
) -> Result<Result<(), String>, Error> {
    let SubscriptionRecord { group, instance, pattern, durable, owner, .. } = record;
    let PatternColumns { final_rest, dots, glob, literals } = &record.columns;
    let (name, dots) = (&*record.name, *dots as i32);
    let mut is_backfill_due = false;
    let id = loop {
        let known = session.query(&sql.subscription, &[group, &name, instance])?;
        if let Some(row) = known.first() {
            let (id, known): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
            match record.changes_pattern(&known) {
                Err(problem) => return Ok(Err(problem)),
                Ok(true) => {
                    session.execute(&sql.change_pattern, &[&id, pattern, final_rest, &dots, glob, literals])?;
                }
                Ok(false) => {}
            }
            break id;
        }
        let epoch = Some(SystemTime::UNIX_EPOCH);
        let (after, since) = match &record.start {
            StartPosition::New => (None, None),
            StartPosition::After(id) => match session.query(&sql.position, &[&id.to_string()])?.first() {
                Some(row) => (Some(row.try_get::<_, i64>(0)?), epoch),
                None => return Ok(Err(record.start_not_held())),
            },
            StartPosition::From(time) => (Some(0), Some(split_time(*time).0)),
            _ => (Some(0), epoch),
        };
        let rows = session.query(
            &sql.insert_subscription,
            &[group, &name, instance, pattern, final_rest, &dots, glob, literals, durable, &after, &since],
        )?;
        // Without a row, another instance has inserted it in between.
        if let Some(row) = rows.first() {
            is_backfill_due = after.is_some();
            break row.try_get(0)?;
        }
    };
    if is_backfill_due {
        session.execute(&sql.backfill, &[&id])?;
    }
    session.execute(&sql.record_owner, &[&id, owner, &owner.as_ref().map(|_| alive)])?;
    Ok(Ok(()))
}
