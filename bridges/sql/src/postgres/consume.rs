//! Claims ready deliveries, oldest first, and waits for more. Notifications report events of this provider and of others. Those of
//! others may be lost, so the tables are polled each `poll_interval` as well.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::Event;
use eventbroker::provider::{self, BackendError, Demand, Lease, LeaseToken, Waker};

use crate::columns::event;
use crate::leases::{CLAIM_DEPTH, ClaimSize, DeliveryRow};
use crate::member::Member;
use crate::notify::{Notified, Notify};
use crate::postgres::housekeeping::Housekeeping;
use crate::postgres::statements::{State, Tables, Verdict, seconds, settle, storable};
use crate::postgres::transport::{Notifier, Parameter};

/// Hands out leases.
pub(crate) struct Ingest {
    tables: Tables,
    member: Arc<Member>,
    notifier: Arc<Notifier>,
    notify: Arc<Notify>,
    housekeeping: Housekeeping,
    /// The ids of the subscriptions, by name.
    ids: HashMap<Arc<str>, i64>,
    claim_size: ClaimSize,
    /// The number of the next lease. No other lease has the same number and member.
    next_token: u64,
}

/// A claimed delivery. The event is an error if its row is not an event.
struct Claimed {
    row: DeliveryRow,
    token: u64,
    suspect: bool,
    crashes: u32,
    event: Result<Event, String>,
}

impl Ingest {
    pub(crate) fn new(
        tables: Tables,
        member: Arc<Member>,
        notifier: Arc<Notifier>,
        housekeeping: Housekeeping,
    ) -> Self {
        let notify = notifier.add_waiter();
        let (ids, claim_size) = (HashMap::new(), ClaimSize::new());
        Self { tables, member, notifier, notify, housekeeping, ids, claim_size, next_token: 1 }
    }

    /// Reads the ids of subscriptions that are not known yet.
    fn read_ids(&mut self, demand: &[Demand]) -> Result<(), BackendError> {
        let unknown = demand.iter().map(|demand| &demand.subscription).filter(|name| !self.ids.contains_key(*name));
        let (names, instances): (Vec<String>, Vec<String>) =
            unknown.filter_map(|name| Some((name.to_string(), self.member.subscriptions.instance_of(name)?))).unzip();
        if names.is_empty() {
            return Ok(());
        }
        let group = self.member.settings.consumer_group.clone();
        let found = self.tables.call(move |session, sql| {
            let rows = session.query(&sql.subscriptions, &[&group, &names, &instances])?;
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<Vec<(String, i64)>, _>>()
        })?;
        self.ids.extend(found.into_iter().map(|(name, id)| (name.into(), id)));
        Ok(())
    }

    fn claim(&mut self, demand: &[Demand]) -> Result<Vec<Lease>, BackendError> {
        let mut wanted: Vec<(i64, &Demand)> =
            demand.iter().filter_map(|demand| Some((*self.ids.get(&demand.subscription)?, demand))).collect();
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        // All members lock subscriptions in the same order.
        wanted.sort_by_key(|(id, _)| *id);
        let ids: Vec<i64> = wanted.iter().map(|(id, _)| *id).collect();
        let size = |demand: &Demand| self.claim_size.within(demand.deliveries).try_into().unwrap_or(i32::MAX);
        let counts: Vec<i32> = wanted.iter().map(|(_, demand)| size(demand)).collect();
        let first_token = self.next_token as i64;
        self.next_token += counts.iter().map(|count| *count as u64).sum::<u64>();
        let (id, lease) = (self.member.id.clone(), seconds(self.member.settings.lease_time));
        let asked = Instant::now();
        let claimed: Vec<Claimed> = self.tables.call(move |session, sql| {
            let values: [&dyn Parameter; 6] = [&id, &lease, &CLAIM_DEPTH, &ids, &counts, &first_token];
            let claimed = |row: &postgres::Row| {
                Ok(Claimed {
                    row: DeliveryRow { position: row.try_get(2)?, subscription: row.try_get(1)? },
                    token: row.try_get::<_, i64>(0)? as u64,
                    suspect: row.try_get(3)?,
                    crashes: row.try_get::<_, i32>(4)?.try_into().unwrap_or(0),
                    event: event(row, 5).map_err(|error| error.to_string()),
                })
            };
            session.query(&sql.claim, &values)?.iter().map(claimed).collect::<Result<_, _>>()
        })?;
        self.claim_size.record(asked.elapsed(), self.member.settings.lease_time);
        let names: HashMap<i64, &Arc<str>> = wanted.iter().map(|(id, demand)| (*id, &demand.subscription)).collect();
        let mut leases = Vec::with_capacity(claimed.len());
        for Claimed { row, token, suspect, crashes, event } in claimed {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    // Another program has inserted this row. It must not block the others.
                    tracing::warn!(position = row.position, %error, "a row of the events' table is not an event");
                    self.settle_unreadable(row, token, &error)?;
                    continue;
                }
            };
            let Some(name) = names.get(&row.subscription) else { continue };
            let lease = Lease::new(LeaseToken(token), Arc::clone(name), event).asked_at(asked);
            self.member.leases.insert([(lease.token, row)]);
            leases.push(if suspect { lease.suspected(crashes) } else { lease });
        }
        Ok(leases)
    }

    fn settle_unreadable(&self, row: DeliveryRow, token: u64, problem: &str) -> Result<(), BackendError> {
        let (id, error) = (self.member.id.clone(), Some(storable(problem)));
        let (state, reason, history) = (State::Dead, Some("unreadable"), None);
        let verdict = Verdict { row, token, state, attempts: 0, reason, error, history };
        self.tables.call(move |session, sql| settle(session, sql, &id, &[verdict])).map(drop)
    }

    /// Claims ready deliveries, or waits for them.
    fn claim_or_wait(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        let deadline = Instant::now() + wait;
        if !demand.is_empty() {
            self.notifier.listen();
        }
        // A subscription that is not served now may be made again under another id.
        self.ids.retain(|name, _| demand.iter().any(|demand| demand.subscription == *name));
        loop {
            if self.housekeeping.schedule.begin() {
                // Another process may have removed a subscription and made it again.
                self.ids.clear();
                self.housekeeping.run()?;
            }
            self.housekeeping.check_backlog()?;
            self.housekeeping.catch_up()?;
            self.read_ids(demand)?;
            let leases = self.claim(demand)?;
            if !leases.is_empty() {
                return Ok(leases);
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(Vec::new());
            }
            let until = (now + self.notifier.poll_interval).min(deadline).min(self.housekeeping.schedule.next.max(now));
            if self.notify.wait(until) == Notified::Woken {
                return Ok(Vec::new());
            }
        }
    }
}

impl provider::Ingest for Ingest {
    fn receive(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        let received = self.claim_or_wait(demand, wait);
        if received.is_err() {
            self.housekeeping.postpone();
        }
        received
    }

    fn waker(&self) -> Option<Waker> {
        let notify = Arc::clone(&self.notify);
        Some(Arc::new(move || notify.wake()))
    }
}
