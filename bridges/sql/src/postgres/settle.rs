//! Reports outcomes and extends leases. Each change of a lease names its holder and its token, so a member that has lost the lease
//! changes nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use eventbroker::provider::{self, BackendError, LeaseOutcome, LeaseToken, Registration, Settlement};

use crate::columns::errors_text;
use crate::leases::DeliveryRow;
use crate::member::Member;
use crate::postgres::membership::Membership;
use crate::postgres::statements::{State, Tables, Verdict, seconds, settle, storable};
use crate::postgres::subscriptions::Subscriptions;
use crate::postgres::transport::Notifier;
use crate::subscriptions::UseRecord;

/// How long a drop waits for the server.
const LEAVE_LIMIT: Duration = Duration::from_secs(2);

/// Settles leases, and passes on what concerns subscriptions and the instance.
pub(crate) struct Settler {
    tables: Tables,
    member: Arc<Member>,
    notifier: Arc<Notifier>,
    subscriptions: Subscriptions,
    membership: Membership,
    uses: UseRecord,
}

impl Settler {
    pub(crate) fn new(
        tables: Tables,
        member: Arc<Member>,
        notifier: Arc<Notifier>,
        catching_up: Arc<AtomicBool>,
    ) -> Self {
        let subscriptions = Subscriptions { tables: tables.clone(), member: member.clone(), catching_up };
        let membership = Membership::new(tables.clone(), member.clone(), notifier.clone());
        let uses = UseRecord::new(member.settings.idle_expiry);
        Self { tables, member, notifier, subscriptions, membership, uses }
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
        let verdict = |(settlement, row): (&Settlement, DeliveryRow)| {
            let (token, reason, error, history) = (settlement.token.0, None, None, None);
            match &settlement.outcome {
                LeaseOutcome::Done { attempts } => {
                    Verdict { row, token, state: State::Done, attempts: *attempts, reason, error, history }
                }
                LeaseOutcome::Dead { reason, attempts, error, errors } => {
                    let (reason, error, history) =
                        (Some(reason.as_str()), Some(storable(error)), Some(errors_text(errors)));
                    Verdict { row, token, state: State::Dead, attempts: *attempts, reason, error, history }
                }
                _ => Verdict { row, token, state: State::Ready, attempts: 0, reason, error, history },
            }
        };
        let (verdicts, id): (Vec<Verdict>, _) = (held.into_iter().map(verdict).collect(), self.member.id.clone());
        let lost_before = self.tables.call(move |session, sql| settle(session, sql, &id, &verdicts))?;
        lost.extend(lost_before.into_iter().map(LeaseToken));
        if self.member.leases.end(settlements) {
            self.notifier.stored();
        } else if settlements.len() > lost.len() {
            // The next delivery of a key may be ready. Other instances find it by polling.
            self.notifier.stored_here();
        }
        Ok(lost)
    }

    fn mark(&mut self, token: LeaseToken, begun: bool) -> Result<bool, BackendError> {
        let Some(row) = self.member.leases.row(token) else { return Ok(false) };
        let id = self.member.id.clone();
        let changed = self.tables.call(move |session, sql| {
            let statement = if begun { &sql.mark } else { &sql.unmark };
            session.execute(statement, &[&row.position, &row.subscription, &(token.0 as i64), &id])
        })?;
        Ok(changed > 0)
    }

    fn lease_time(&self) -> Option<Duration> {
        Some(self.member.settings.lease_time)
    }

    fn extend(&mut self, tokens: &[LeaseToken]) -> Result<Vec<LeaseToken>, BackendError> {
        let held = self.member.leases.held(tokens);
        let tokens: Vec<i64> = held.iter().map(|(token, _)| token.0 as i64).collect();
        let (positions, subscriptions): (Vec<i64>, Vec<i64>) =
            held.iter().map(|(_, row)| (row.position, row.subscription)).unzip();
        let record_use = self.uses.is_due().then(|| self.subscriptions.record_use());
        let is_use_recorded = record_use.is_some();
        let heartbeat = self.membership.heartbeat();
        let (id, lease) = (self.member.id.clone(), seconds(self.member.settings.lease_time));
        let extended: HashSet<i64> = self.tables.call(move |session, sql| {
            let mut extended = HashSet::new();
            if !tokens.is_empty() {
                let rows = session.query(&sql.extend, &[&positions, &subscriptions, &tokens, &id, &lease])?;
                extended = rows.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<i64>, _>>()?;
            }
            record_use.map_or(Ok(()), |record_use| record_use(session, sql))?;
            heartbeat(session, sql)?;
            Ok(extended)
        })?;
        if is_use_recorded {
            self.uses.recorded();
        }
        let lost = held.into_iter().map(|(token, _)| token).filter(|token| !extended.contains(&(token.0 as i64)));
        Ok(lost.collect())
    }
}

/// Gives the name of the instance back, and removes the broadcast subscriptions that only this provider has served.
impl Drop for Settler {
    fn drop(&mut self) {
        if self.membership.instance.is_empty() {
            return;
        }
        let (leave, remove_owned) = (self.membership.leave(), self.subscriptions.remove_owned());
        let left = self.tables.call_within(LEAVE_LIMIT, move |session, sql| {
            leave(session, sql)?;
            remove_owned(session, sql)
        });
        if let Err(error) = left {
            tracing::warn!(%error, "the instance's name and its broadcast subscriptions stay until they expire");
        }
    }
}
