//! This provider as a member of its group: the name of its instance.

use std::sync::Arc;

use eventbroker::provider::BackendError;

use crate::member::Member;
use crate::postgres::statements::{Tables, Work, seconds};
use crate::postgres::transport::Notifier;
use crate::subscriptions::REMOVE_AFTER;

/// The name of this instance.
pub(crate) struct Membership {
    tables: Tables,
    member: Arc<Member>,
    notifier: Arc<Notifier>,
    /// Empty until this instance has joined.
    pub(crate) instance: String,
}

impl Membership {
    pub(crate) fn new(tables: Tables, member: Arc<Member>, notifier: Arc<Notifier>) -> Self {
        Self { tables, member, notifier, instance: String::new() }
    }

    /// Claims the name for this instance. False if another instance has it.
    pub(crate) fn join(&mut self, name: &str) -> Result<bool, BackendError> {
        let (instance, id, lease) = (name.to_owned(), self.member.id.clone(), self.lease());
        let send_joined = self.notifier.send_joined();
        let joined = self.tables.call(move |session, sql| {
            let joined = !session.query(&sql.claim_instance, &[&instance, &id, &lease])?.is_empty();
            if joined {
                send_joined(session)?;
            }
            Ok(joined)
        })?;
        if joined {
            self.instance = name.to_owned();
        }
        Ok(joined)
    }

    fn lease(&self) -> f64 {
        seconds(self.member.settings.lease_time)
    }

    /// Keeps the name for another lease time, and the broadcast subscriptions of this provider.
    pub(crate) fn heartbeat(&self) -> Work {
        let (id, lease) = (self.member.id.clone(), self.lease());
        let alive = seconds(self.member.settings.lease_time.saturating_mul(REMOVE_AFTER));
        Box::new(move |session, sql| session.execute(&sql.heartbeat, &[&id, &lease, &alive]).map(drop))
    }

    /// Gives the name back.
    pub(crate) fn leave(&self) -> Work {
        let id = self.member.id.clone();
        Box::new(move |session, sql| session.execute(&sql.release_instance, &[&id]).map(drop))
    }
}
