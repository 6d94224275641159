//! The reconciliation at the end: the changes that the database committed against the deliveries of the broker, from
//! counts that are independent of each other. It is formatted in `report.rs`.

use std::collections::{BTreeMap, BTreeSet};

use eventbroker::dead_letter::DeadLetterFilter;
use eventbroker::hooks::CrudHooks;
use eventbroker::provider::EventStore;
use eventbroker::query::Filter;
use eventbroker::stats::{Stats, StoreStats};
use eventbroker::{Broker, Event, Status, StopReport};
use serde::Serialize;

use super::cache::Cache;
use super::shop::{SCHEMA, Shop, Undone};
use super::subscribers::{ALARM, AUDIT, MAILER, Subscribers};
use super::writers::Tally;

/// Two numbers from different sources that must be equal.
#[derive(Debug, Serialize)]
pub(super) struct Check {
    /// The stable name in the JSON report.
    pub(super) name: &'static str,
    /// The labels of `left` and `right` in the text report; the right one is empty if `right` is the constant 0.
    #[serde(skip)]
    pub(super) sides: (&'static str, &'static str),
    pub(super) left: u64,
    pub(super) right: u64,
    pub(super) ok: bool,
}

impl Check {
    fn equal(name: &'static str, left: (u64, &'static str), right: (u64, &'static str)) -> Self {
        Self { name, sides: (left.1, right.1), left: left.0, right: right.0, ok: left.0 == right.0 }
    }
}

/// Committed changes by event type, counted by the database.
pub(super) type Changes = BTreeMap<String, u64>;

/// The counts of events by status, read from where the events are held.
pub(super) struct Account {
    /// Events that were accepted.
    pub(super) accepted: u64,
    /// Accepted notices of dead letters. A back end does not hold these, so the count is 0 with one.
    notices: u64,
    pub(super) completed: u64,
    pub(super) failed: u64,
    pub(super) store: StoreStats,
}

impl Account {
    /// Reads the counts from the back end, which has evicted nothing; without one, from the broker's statistics.
    pub(super) fn of(broker: &Broker, stats: &Stats, held: Option<&dyn EventStore>) -> Result<Self, Undone> {
        Ok(match held {
            Some(held) => {
                let store = held.stats()?;
                let StoreStats { events: accepted, completed, failed, .. } = store;
                Self { accepted, notices: 0, completed, failed, store }
            }
            None => Self {
                accepted: stats.accepted,
                notices: stats.deliveries.dead,
                completed: stats.completed,
                failed: stats.failed,
                store: broker.store_stats(),
            },
        })
    }
}

/// The sources that are compared.
pub(super) struct Books<'a> {
    pub(super) broker: &'a Broker,
    pub(super) stats: &'a Stats,
    pub(super) account: &'a Account,
    pub(super) stop: &'a StopReport,
    pub(super) published: &'a CrudHooks,
    pub(super) changes: &'a Changes,
    pub(super) tally: &'a Tally,
    pub(super) subscribers: &'a Subscribers,
    pub(super) cache: &'a Cache,
    pub(super) shop: &'a Shop,
}

/// Reads the changes that the database committed, by event type.
pub(super) fn committed_changes(shop: &Shop) -> rusqlite::Result<Changes> {
    let counted = shop.committed_changes()?.into_iter().filter(|(_, _, count)| *count > 0);
    Ok(counted.map(|(entity, operation, count)| (format!("{SCHEMA}.{entity}.{operation}"), count)).collect())
}

impl Books<'_> {
    /// Makes all comparisons, one check each.
    pub(super) fn check(&self) -> Result<Vec<Check>, Undone> {
        let stats = self.stats;
        let committed = self.changes.values().sum();
        let (accepted, refused) = (self.published.accepted(), self.published.refused());
        let rows: Changes = self.subscribers.audit.rows()?.into_iter().collect();
        let store = self.store()?;
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::SeqCst);
        Ok(vec![
            Check::equal(
                "changes_published",
                (committed, "changes committed, counted by triggers"),
                (accepted + refused, "events accepted + refused"),
            ),
            Check::equal("none_refused", (refused, "events refused"), (0, "")),
            Check::equal(
                "events_accepted",
                (self.account.accepted, "events accepted by the broker"),
                (accepted + self.account.notices, "changes + notices of dead letters"),
            ),
            Check::equal(
                "events_settled",
                (self.account.accepted, "events accepted"),
                (self.account.completed + self.account.failed, "completed + failed"),
            ),
            Check::equal("none_abandoned", (self.stop.abandoned.len() as u64, "events abandoned by stop"), (0, "")),
            Check::equal(
                "audit_rows",
                (rows.values().sum(), "rows in the audit log"),
                (self.done(AUDIT), "deliveries done by audit"),
            ),
            Check::equal(
                "audit_types",
                (differing(&rows, self.changes), "event types with a different count there"),
                (0, ""),
            ),
            Check::equal(
                "mail",
                (load(&self.subscribers.mailer.sent) + stats.deliveries.dead, "mails sent + deliveries dead"),
                (self.changes.get("shop.orders.create").copied().unwrap_or(0), "orders placed"),
            ),
            Check::equal(
                "mail_done",
                (load(&self.subscribers.mailer.sent), "mails sent"),
                (self.done(MAILER), "deliveries done by mailer"),
            ),
            Check::equal("failed", (self.account.failed, "events failed"), (stats.deliveries.dead, "deliveries dead")),
            Check::equal(
                "alarms",
                (load(&self.subscribers.alarms), "alarms raised"),
                (self.done(ALARM), "deliveries done by alarm"),
            ),
            Check::equal("cache_stale", (self.stale()?, "stale products in the cache"), (0, "")),
            Check::equal(
                "store_settled",
                (store.completed + store.failed, "completed + failed in the store"),
                (store.held, "events in the store"),
            ),
            Check::equal("store_failed", (store.mismatches, "statuses that dead letters contradict"), (0, "")),
            Check::equal(
                "hook_changes",
                (load(&self.tally.changes), "changes passed to the after-hooks"),
                (committed, "changes committed"),
            ),
        ])
    }

    fn done(&self, name: &str) -> u64 {
        self.stats.subscriptions.iter().find(|it| &*it.name == name).map_or(0, |it| it.deliveries.done)
    }

    /// Counts the cached products that differ from the database.
    fn stale(&self) -> rusqlite::Result<u64> {
        let mut stale = 0;
        for product in self.cache.products() {
            let fresh = self.shop.product(product.id)?.is_some_and(|it| it.version == product.version);
            stale += u64::from(!fresh);
        }
        Ok(stale)
    }

    /// Reads every event still in the store, and compares its status with the dead letters.
    fn store(&self) -> Result<StoreCount, Undone> {
        let (mut dead, mut after) = (BTreeSet::new(), None);
        loop {
            let letters = self.broker.dead_letters(&DeadLetterFilter { after, ..DeadLetterFilter::default() })?;
            dead.extend(letters.iter().map(|letter| letter.event.id().clone()));
            match letters.last() {
                Some(last) => after = Some(last.id),
                None => break,
            }
        }
        let mut count = StoreCount { held: self.account.store.events, ..StoreCount::default() };
        let mut filter = Filter { limit: Some(10_000), ..Filter::default() };
        loop {
            let page = self.broker.list(&filter)?;
            page.events.iter().for_each(|event| count.add(event, dead.contains(event.id())));
            match page.next {
                Some(next) => filter.after = Some(next),
                None => return Ok(count),
            }
        }
    }
}

#[derive(Default)]
struct StoreCount {
    held: u64,
    completed: u64,
    failed: u64,
    mismatches: u64,
}

impl StoreCount {
    fn add(&mut self, event: &Event, dead: bool) {
        match event.status() {
            Status::Completed => self.completed += 1,
            Status::Failed => self.failed += 1,
            Status::Pending | Status::Processing => {}
        }
        self.mismatches += u64::from((event.status() == Status::Failed) != dead);
    }
}

/// The number of event types whose counts differ.
fn differing(here: &Changes, there: &Changes) -> u64 {
    let types: BTreeSet<_> = here.keys().chain(there.keys()).collect();
    types.into_iter().filter(|of| here.get(*of) != there.get(*of)).count() as u64
}
