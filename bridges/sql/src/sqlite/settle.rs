//! Reports outcomes and extends leases. Each call is one transaction. Each change of a lease names its token, so a member that has lost
//! the lease changes nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use eventbroker::provider::{self, BackendError, LeaseOutcome, LeaseToken, Registration, Settlement};
use rusqlite::{Transaction, params};

use crate::columns::{errors_text, time_text};
use crate::leases::DeliveryRow;
use crate::member::Member;
use crate::notify::Notify;
use crate::sqlite::membership::Membership;
use crate::sqlite::statements::{Tables, execute};
use crate::sqlite::subscriptions::Subscriptions;
use crate::sqlite::transport::{Sync, deadline};
use crate::subscriptions::UseRecord;

/// Settles leases, and passes on what concerns subscriptions and the instance.
pub(crate) struct Settler {
    tables: Arc<Tables>,
    member: Arc<Member>,
    notify: Arc<Notify>,
    subscriptions: Subscriptions,
    membership: Membership,
    uses: UseRecord,
}

impl Settler {
    pub(crate) fn new(tables: Arc<Tables>, member: Arc<Member>, notify: Arc<Notify>) -> Self {
        let subscriptions = Subscriptions { tables: tables.clone(), member: member.clone() };
        let membership = Membership::new(tables.clone(), &member);
        let uses = UseRecord::new(member.settings.idle_expiry);
        Self { tables, member, notify, subscriptions, membership, uses }
    }

    /// Ends one lease. False if the lease was lost before.
    fn end(
        &self,
        transaction: &Transaction<'_>,
        settlement: &Settlement,
        row: DeliveryRow,
        now: &str,
    ) -> rusqlite::Result<bool> {
        let (sql, token) = (&self.tables.sql, settlement.token.0 as i64);
        let DeliveryRow { position, subscription } = row;
        let changed = match &settlement.outcome {
            LeaseOutcome::Done { attempts } => {
                let values = params![position, subscription, token, attempts, now];
                let changed = execute(transaction, &sql.settle_done, values)?;
                if changed > 0 && *attempts > 1 {
                    execute(transaction, &sql.record_retries, params![position, attempts - 1])?;
                }
                changed
            }
            LeaseOutcome::Dead { reason, attempts, error, errors } => {
                let number = self.tables.add_to_counter(transaction, "dead_letter", 1)?;
                let (reason, errors) = (reason.as_str(), errors_text(errors));
                let values = params![position, subscription, token, attempts, reason, error, now, errors, number];
                execute(transaction, &sql.settle_dead, values)?
            }
            _ => execute(transaction, &sql.release, params![position, subscription, token])?,
        };
        // An earlier call may have ended the lease, and its answer may have been lost.
        Ok(changed > 0 || transaction.prepare_cached(&sql.has_token)?.exists(params![position, subscription, token])?)
    }
}

impl provider::Settler for Settler {
    fn join(&mut self, instance_id: &str) -> Result<bool, BackendError> {
        self.membership.join(instance_id)
    }

    fn register(&mut self, registration: &Registration) -> Result<(), BackendError> {
        self.subscriptions.register(registration, &self.membership.instance)
    }

    fn unregister(&mut self, name: &str) -> Result<(), BackendError> {
        self.subscriptions.unregister(name)
    }

    fn remove(&mut self, name: &str) -> Result<bool, BackendError> {
        self.subscriptions.remove(name, &self.membership.instance)
    }

    fn settle(&mut self, settlements: &[Settlement]) -> Result<Vec<LeaseToken>, BackendError> {
        let (held, mut lost) = self.member.leases.split(settlements);
        lost.extend(self.tables.file.write(Sync::Later, |transaction| {
            let now = time_text(SystemTime::now());
            let (mut lost, mut positions) = (Vec::new(), BTreeSet::new());
            for (settlement, row) in &held {
                if self.end(transaction, settlement, *row, &now)? {
                    positions.insert(row.position);
                } else {
                    lost.push(settlement.token);
                }
            }
            self.tables.refresh_statuses(transaction, &positions)?;
            Ok(lost)
        })?);
        if self.member.leases.end(settlements) || settlements.len() > lost.len() {
            // The next delivery of a key may be ready.
            self.notify.stored();
        }
        Ok(lost)
    }

    fn mark(&mut self, token: LeaseToken, begun: bool) -> Result<bool, BackendError> {
        let Some(row) = self.member.leases.row(token) else { return Ok(false) };
        let statement = if begun { &self.tables.sql.mark } else { &self.tables.sql.unmark };
        let changed = self.tables.file.write(Sync::Later, |transaction| {
            execute(transaction, statement, params![row.position, row.subscription, token.0 as i64])
        })?;
        Ok(changed > 0)
    }

    fn lease_time(&self) -> Option<Duration> {
        Some(self.member.settings.lease_time)
    }

    fn extend(&mut self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>, BackendError> {
        let held = self.member.leases.held(tokens);
        let is_use_due = self.uses.is_due();
        let lost = self.tables.file.write(Sync::Later, |transaction| {
            let until = deadline(self.member.settings.lease_time);
            let mut extend = transaction.prepare_cached(&self.tables.sql.extend)?;
            let mut lost = Vec::new();
            for (token, row) in &held {
                if extend.execute(params![row.position, row.subscription, token.0 as i64, until])? == 0 {
                    lost.push(*token);
                }
            }
            if is_use_due {
                self.subscriptions.record_use(transaction)?;
            }
            self.membership.heartbeat(transaction)?;
            self.subscriptions.heartbeat(transaction)?;
            Ok(lost)
        })?;
        if is_use_due {
            self.uses.recorded();
        }
        Ok(lost)
    }
}

/// Gives the name of the instance back, and removes the broadcast subscriptions that only this provider has served.
impl Drop for Settler {
    fn drop(&mut self) {
        let left = self.tables.file.write(Sync::Later, |transaction| {
            self.membership.leave(transaction)?;
            self.subscriptions.remove_owned(transaction)
        });
        if let Err(error) = left {
            tracing::warn!(%error, "the instance's name and its broadcast subscriptions stay until they expire");
        }
    }
}
