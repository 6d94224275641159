//! Claims ready deliveries, oldest first, and waits for more. `Notify` reports events of this provider, the watcher those of others.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::provider::{self, BackendError, Demand, Lease, LeaseToken, Waker};
use rusqlite::{Connection, OptionalExtension, Transaction, params};

use crate::columns::{event, time_text};
use crate::leases::{CLAIM_DEPTH, ClaimSize, DeliveryRow};
use crate::member::Member;
use crate::notify::{Notified, Notify};
use crate::settings::OpenError;
use crate::sqlite::housekeeping::Housekeeping;
use crate::sqlite::statements::{Tables, execute};
use crate::sqlite::transport::{Sync, Watcher, backend_error, deadline};

/// Hands out leases.
pub(crate) struct Ingest {
    tables: Arc<Tables>,
    member: Arc<Member>,
    notify: Arc<Notify>,
    housekeeping: Housekeeping,
    reader: Connection,
    watcher: Watcher,
    /// The ids of the subscriptions, by name.
    ids: HashMap<Arc<str>, i64>,
    claim_size: ClaimSize,
    /// The subscriptions that are not searched for a while, by their ids.
    rests: HashMap<i64, Rest>,
}

/// The search of a subscription that took longer and found nothing is followed by a rest of `REST` times its duration. Each commit of
/// another member could start the next one.
const LONG_SEARCH: Duration = Duration::from_millis(1);
const REST: u32 = 4;

/// The rest of a subscription after a long search.
struct Rest {
    until: Instant,
    /// Something has changed since the search, so the next one begins when the rest ends.
    is_due: bool,
}

/// A claimed delivery: its row, and its lease.
type Claimed = (DeliveryRow, Lease);

impl Ingest {
    pub(crate) fn new(
        tables: Arc<Tables>,
        member: Arc<Member>,
        notify: Arc<Notify>,
        housekeeping: Housekeeping,
    ) -> Result<Self, OpenError> {
        let (reader, watcher) = (tables.file.connect_reader()?, Watcher::default());
        let (ids, claim_size) = (HashMap::new(), ClaimSize::new());
        let rests = HashMap::new();
        Ok(Self { tables, member, notify, housekeeping, reader, watcher, ids, claim_size, rests })
    }

    fn poll(&mut self) -> Result<bool, BackendError> {
        self.watcher.poll(&self.reader).map_err(|error| backend_error(&error))
    }

    /// The subscriptions with deliveries to claim, of those that do not rest.
    fn claimable<'a>(&mut self, demand: &'a [Demand]) -> rusqlite::Result<Vec<(i64, &'a Demand)>> {
        let (now, mut claimable) = (Instant::now(), Vec::new());
        self.rests.retain(|_, rest| now < rest.until);
        for demand in demand {
            let Some(id) = self.subscription_id(&demand.subscription)? else { continue };
            if let Some(rest) = self.rests.get_mut(&id) {
                rest.is_due = true;
                continue;
            }
            let (began, (_, depth)) = (Instant::now(), self.limits(demand));
            let can_claim = self.reader.prepare_cached(&self.tables.sql.can_claim)?.exists([id, depth])?;
            let took = began.elapsed();
            if can_claim {
                claimable.push((id, demand));
            } else if took > LONG_SEARCH {
                self.rests.insert(id, Rest { until: Instant::now() + took * REST, is_due: false });
            }
        }
        Ok(claimable)
    }

    /// When the first rest ends after which a search is due.
    fn search_due(&self) -> Option<Instant> {
        self.rests.values().filter(|rest| rest.is_due).map(|rest| rest.until).min()
    }

    /// The most deliveries that a claim takes, and the most rows that it reads.
    fn limits(&self, demand: &Demand) -> (i64, i64) {
        let wanted = self.claim_size.within(demand.deliveries) as i64;
        (wanted, wanted + i64::from(CLAIM_DEPTH))
    }

    fn subscription_id(&mut self, name: &Arc<str>) -> rusqlite::Result<Option<i64>> {
        if let Some(id) = self.ids.get(name) {
            return Ok(Some(*id));
        }
        let Some(instance) = self.member.subscriptions.instance_of(name) else { return Ok(None) };
        let mut statement = self.reader.prepare_cached(&self.tables.sql.subscription)?;
        let values = params![self.member.settings.consumer_group, name, instance];
        let id: Option<i64> = statement.query_row(values, |row| row.get(0)).optional()?;
        self.ids.extend(id.map(|id| (Arc::clone(name), id)));
        Ok(id)
    }

    /// Claims deliveries of all these subscriptions in one transaction.
    fn claim(&mut self, claimable: &[(i64, &Demand)]) -> Result<Vec<Lease>, BackendError> {
        let began = Instant::now();
        let claimed = self.tables.file.write(Sync::Later, |transaction| {
            let mut claimed = Vec::new();
            for (id, demand) in claimable {
                self.claim_from(transaction, *id, demand, &mut claimed)?;
            }
            Ok(claimed)
        })?;
        self.claim_size.record(began.elapsed(), self.member.settings.lease_time);
        self.member.leases.insert(claimed.iter().map(|(row, lease)| (lease.token, *row)));
        Ok(claimed.into_iter().map(|(_, lease)| lease).collect())
    }

    fn claim_from(
        &self,
        transaction: &Transaction<'_>,
        subscription: i64,
        demand: &Demand,
        claimed: &mut Vec<Claimed>,
    ) -> rusqlite::Result<()> {
        let sql = &self.tables.sql;
        let mut claim = transaction.prepare_cached(&sql.claim)?;
        let (wanted, depth) = self.limits(demand);
        let found = claim
            .query_map(params![subscription, wanted, depth], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, bool>(1)?, row.get::<_, u32>(2)?, event(row, 3)))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        if found.is_empty() {
            return Ok(());
        }
        let count = found.len() as i64;
        let first_token = self.tables.add_to_counter(transaction, "token", count)? - count + 1;
        let (asked, until) = (Instant::now(), deadline(self.member.settings.lease_time));
        let now = time_text(SystemTime::now());
        let mut lease = transaction.prepare_cached(&sql.lease)?;
        let mut mark_processing = transaction.prepare_cached(&sql.mark_processing)?;
        let mut unreadable = BTreeSet::new();
        for (token, (position, suspect, crashes, event)) in (first_token..).zip(found) {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    // Another program has inserted this row. It must not block the others.
                    tracing::warn!(position, %error, "a row of the events' table is not an event");
                    let values = params![position, subscription, error.to_string(), now];
                    execute(transaction, &sql.settle_unreadable, values)?;
                    unreadable.insert(position);
                    continue;
                }
            };
            lease.execute(params![position, subscription, token, self.member.id, until])?;
            mark_processing.execute(params![position, now])?;
            let leased = Lease::new(LeaseToken(token as u64), Arc::clone(&demand.subscription), event).asked_at(asked);
            let leased = if suspect { leased.suspected(crashes) } else { leased };
            claimed.push((DeliveryRow { position, subscription }, leased));
        }
        self.tables.refresh_statuses(transaction, &unreadable)
    }
}

impl provider::Ingest for Ingest {
    fn receive(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        let deadline = Instant::now() + wait;
        // A subscription that is not served now may be made again under another id.
        self.ids.retain(|name, _| demand.iter().any(|demand| demand.subscription == *name));
        loop {
            if self.housekeeping.schedule.begin() {
                // Another process may have removed a subscription and made it again.
                self.ids.clear();
                self.housekeeping.run(&self.reader)?;
            }
            self.housekeeping.check_backlog(&self.reader)?;
            // The poll comes before the reads, so that the next poll detects commits after them.
            self.poll()?;
            let claimable = self.claimable(demand).map_err(|error| backend_error(&error))?;
            if !claimable.is_empty() {
                let leases = self.claim(&claimable)?;
                if !leases.is_empty() {
                    self.watcher.reset_pause();
                    return Ok(leases);
                }
            }
            loop {
                let (now, next) = (Instant::now(), self.housekeeping.schedule.next);
                if now >= deadline {
                    return Ok(Vec::new());
                }
                let due = self.search_due().map_or(next, |search| search.min(next));
                match self.notify.wait((now + self.watcher.pause()).min(deadline).min(due.max(now))) {
                    Notified::Woken => return Ok(Vec::new()),
                    Notified::Stored => break,
                    Notified::TimedOut => {}
                }
                if Instant::now() >= due || self.poll()? {
                    break;
                }
            }
        }
    }

    fn waker(&self) -> Option<Waker> {
        let notify = Arc::clone(&self.notify);
        Some(Arc::new(move || notify.wake()))
    }
}
