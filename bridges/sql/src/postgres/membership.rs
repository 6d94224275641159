//! This provider as a member of its group: its id, and the name of its instance.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use eventbroker::provider::BackendError;
use postgres::Error;

use crate::postgres::statements::{Statements, Tables, seconds};
use crate::postgres::transport::{Notifier, Session};
use crate::subscriptions::REMOVE_AFTER;

/// A new id, which no other provider has.
pub(crate) fn new_member() -> Arc<str> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let (pid, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let random = RandomState::new().hash_one((pid, now));
    format!("{pid}-{number}-{random:016x}").into()
}

/// The name of this instance.
#[derive(Debug)]
pub(crate) struct Membership {
    tables: Tables,
    lease_time: Duration,
    member: Arc<str>,
    notifier: Arc<Notifier>,
    /// Empty until this instance has joined.
    instance: String,
}

impl Membership {
    pub(crate) fn new(tables: &Tables, lease_time: Duration, member: &Arc<str>, notifier: &Arc<Notifier>) -> Self {
        let (member, notifier) = (Arc::clone(member), Arc::clone(notifier));
        Self { tables: tables.clone(), lease_time, member, notifier, instance: String::new() }
    }

    pub(crate) fn instance(&self) -> &str {
        &self.instance
    }

    /// Claims the name for this instance. False if another instance has it.
    pub(crate) fn join(&mut self, name: &str) -> Result<bool, BackendError> {
        let (instance, member, lease) = (name.to_owned(), Arc::clone(&self.member), seconds(self.lease_time));
        let notice = self.notifier.joined();
        let joined = self.tables.call(move |session, sql| {
            let joined = !session.query(&sql.claim_instance, &[&instance, &&*member, &lease])?.is_empty();
            if joined {
                notice.send(session)?;
            }
            Ok(joined)
        })?;
        if joined {
            self.instance = name.to_owned();
        }
        Ok(joined)
    }

    /// Keeps the name for another lease time, and the broadcast subscriptions of this provider.
    pub(crate) fn heartbeat(&self) -> impl FnOnce(&mut Session, &Statements) -> Result<(), Error> + Send + use<> {
        let (member, lease) = (Arc::clone(&self.member), seconds(self.lease_time));
        let alive = seconds(self.lease_time.saturating_mul(REMOVE_AFTER));
        move |session, sql| session.execute(&sql.heartbeat, &[&&*member, &lease, &alive]).map(drop)
    }

    /// Gives the name back.
    pub(crate) fn leave(&self) -> impl FnOnce(&mut Session, &Statements) -> Result<(), Error> + Send + use<> {
        let member = Arc::clone(&self.member);
        move |session, sql| session.execute(&sql.release_instance, &[&&*member]).map(drop)
    }
}
