//! The workload: clerk threads that sell, take payment, cancel and restock in transactions chosen by a pseudo-random
//! generator.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use eventbroker::Broker;
use eventbroker::hooks::HookError;

use super::cache::Cache;
use super::shop::{PRODUCTS, Product, Shop, Undone, Work};
use super::{MAX_CHANGES, QUEUES};

/// How long a clerk waits before it checks the queues again.
const PAUSE: Duration = Duration::from_millis(1);
/// How many customers and open orders a clerk remembers, each.
const REMEMBERED: usize = 100;
/// The maximum number of lines of an order, without the gift.
const LINES: u64 = 4;

const _: () = assert!(
    2 * (LINES + 2) < MAX_CHANGES,
    "an order, its lines, a gift and its card, each with a change of stock, fit in one transaction"
);

/// The counters of all clerks, for the progress line and the report.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) committed: AtomicU64,
    /// Changes of the committed transactions, as passed to the after-hooks.
    pub(super) changes: AtomicU64,
    pub(super) rolled_back: AtomicU64,
    /// Transactions among the rolled-back ones that a before-hook rejected.
    pub(super) vetoed: AtomicU64,
    pub(super) savepoints_rolled_back: AtomicU64,
    /// Pauses between transactions because a queue was half full.
    pub(super) pauses: AtomicU64,
}

/// The state shared by the clerks.
pub(super) struct Store {
    pub(super) broker: Broker,
    pub(super) cache: Arc<Cache>,
    pub(super) tally: Tally,
    pub(super) closing: AtomicBool,
}

/// One clerk; works until `closing` is set.
pub(super) struct Clerk<'a> {
    store: &'a Store,
    shop: Shop,
    luck: Luck,
    /// Customers of this clerk: id and e-mail address.
    customers: Vec<(i64, String)>,
    /// Orders that can be paid or cancelled.
    open: Vec<i64>,
}

/// How a transaction is to end.
enum End {
    Commit,
    Rollback,
}

impl<'a> Clerk<'a> {
    pub(super) fn new(store: &'a Store, shop: Shop, number: u64) -> Self {
        Self { store, shop, luck: Luck::new(number), customers: Vec::new(), open: Vec::new() }
    }

    pub(super) fn work(mut self) -> Result<(), Undone> {
        self.register()?;
        while !self.store.closing.load(Ordering::Relaxed) {
            if !has_room(&self.store.broker) {
                self.store.tally.pauses.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(PAUSE);
                continue;
            }
            match self.luck.below(100) {
                0..45 => self.sell(),
                45..70 => self.take_payment(),
                70..80 => self.cancel(),
                80..92 => self.stock(),
                _ => self.register(),
            }?;
        }
        Ok(())
    }

    /// Adds a new customer.
    fn register(&mut self) -> Result<(), Undone> {
        let name = format!("{} {}", NAMES[self.luck.below(NAMES.len() as u64) as usize], self.luck.below(100_000));
        let mut added = None;
        let end = transact(self.store, &mut self.shop, |work| {
            added = Some(work.add_customer(&name)?);
            Ok(End::Commit)
        })?;
        if let (End::Commit, Some(customer)) = (end, added) {
            remember(&mut self.customers, (customer.id, customer.email), &mut self.luck);
        }
        Ok(())
    }

    /// Places an order of 1 to 4 lines. Some are rejected by the hook as too large, some are rolled back, and some get
    /// a gift behind a savepoint, which may be rolled back.
    fn sell(&mut self) -> Result<(), Undone> {
        // The cache holds committed products, so they are read before the transaction begins.
        let lines: Vec<(Product, i64)> = (0..1 + self.luck.below(LINES))
            .map(|_| Ok((self.any_product()?, 1 + self.luck.below(5) as i64)))
            .collect::<Result<_, Undone>>()?;
        let (gift, card) = (self.any_product()?, self.any_product()?);
        let total = lines.iter().map(|(product, quantity)| product.price * quantity).sum();
        let (customer, email) = self.customers[self.luck.below(self.customers.len() as u64) as usize].clone();
        let (second_thoughts, wrapped) = (self.luck.below(10) == 0, self.luck.below(4) == 0);
        let (no_card, no_gift) = (self.luck.below(3) == 0, self.luck.below(3) == 0);
        let tally = &self.store.tally;
        let mut placed = None;
        let end = transact(self.store, &mut self.shop, |work| {
            let order = work.place_order(customer, &email, total)?.id;
            for (product, quantity) in &lines {
                work.add_item(order, product, *quantity)?;
            }
            if wrapped {
                work.savepoint("gift")?;
                work.add_item(order, &gift, 1)?;
                work.savepoint("card")?;
                work.add_item(order, &card, 1)?;
                for (name, unwanted) in [("card", no_card), ("gift", no_gift)] {
                    if unwanted {
                        work.rollback_to(name)?;
                        tally.savepoints_rolled_back.fetch_add(1, Ordering::Relaxed);
                    }
                    work.release(name)?;
                }
            }
            placed = Some(order);
            Ok(if second_thoughts { End::Rollback } else { End::Commit })
        })?;
        if let (End::Commit, Some(order)) = (end, placed) {
            remember(&mut self.open, order, &mut self.luck);
        }
        Ok(())
    }

    fn take_payment(&mut self) -> Result<(), Undone> {
        let Some(order) = self.open.pop() else { return Ok(()) };
        let declined = self.luck.below(20) == 0;
        let end = transact(self.store, &mut self.shop, |work| {
            work.set_state(order, "paid")?;
            Ok(if declined { End::Rollback } else { End::Commit })
        })?;
        if let End::Rollback = end {
            self.open.push(order);
        }
        Ok(())
    }

    fn cancel(&mut self) -> Result<(), Undone> {
        let Some(order) = self.open.pop() else { return Ok(()) };
        transact(self.store, &mut self.shop, |work| work.cancel_order(order).map(|()| End::Commit))?;
        Ok(())
    }

    /// Restocks a product, or changes its price.
    fn stock(&mut self) -> Result<(), Undone> {
        let (id, price) = (1 + self.luck.below(PRODUCTS as u64) as i64, 95 + self.luck.below(9_900) as i64);
        let restock = self.luck.below(2) == 0;
        transact(self.store, &mut self.shop, |work| {
            if restock { work.change_stock(id, 100) } else { work.change_price(id, price) }?;
            Ok(End::Commit)
        })?;
        Ok(())
    }

    fn any_product(&mut self) -> Result<Product, Undone> {
        let id = 1 + self.luck.below(PRODUCTS as u64) as i64;
        self.store.cache.read(id, || Ok(self.shop.product(id)?.ok_or("a product is missing")?))
    }
}

/// Whether every queue is less than half full, so that one transaction of each clerk fits in the other half.
fn has_room(broker: &Broker) -> bool {
    let stats = broker.stats();
    let in_flight = stats.in_flight * 2 < QUEUES.max_in_flight as u64;
    let backlog = stats.bridge.as_ref().map_or(0, |bridge| bridge.mirror_backlog);
    in_flight
        && backlog * 2 < QUEUES.max_backlog
        && stats.subscriptions.iter().all(|it| {
            it.queued * 2 < it.queue_capacity && it.waiting * 2 < it.queue_capacity * QUEUES.waiting_per_place as u64
        })
}

/// Runs a transaction to its end. A rejection by a hook rolls back.
fn transact(
    store: &Store,
    shop: &mut Shop,
    run: impl FnOnce(&mut Work<'_>) -> Result<End, Undone>,
) -> Result<End, Undone> {
    let tally = &store.tally;
    let mut work = shop.begin()?;
    let end = match run(&mut work) {
        Err(veto) if veto.is::<HookError>() => {
            tally.vetoed.fetch_add(1, Ordering::Relaxed);
            End::Rollback
        }
        other => other?,
    };
    match end {
        End::Commit => {
            let changes = work.commit()?;
            tally.changes.fetch_add(changes, Ordering::Relaxed);
            tally.committed.fetch_add(1, Ordering::Relaxed);
        }
        End::Rollback => {
            work.rollback()?;
            tally.rolled_back.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(end)
}

/// Adds an entry; replaces a random one if there are `REMEMBERED`.
fn remember<T>(entries: &mut Vec<T>, entry: T, luck: &mut Luck) {
    if entries.len() < REMEMBERED {
        entries.push(entry);
    } else {
        entries[luck.below(REMEMBERED as u64) as usize] = entry;
    }
}

/// A pseudo-random generator (xorshift64*), seeded by the clerk's number, so every run repeats the same sequence.
struct Luck(u64);

impl Luck {
    fn new(number: u64) -> Self {
        Self((number + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % bound
    }
}

const NAMES: [&str; 8] = ["Ada", "Grace", "Edsger", "Barbara", "Alan", "Katherine", "Donald", "Frances"];

#[cfg(test)]
mod tests {
    use eventbroker::{Event, Source, SubscribeOptions};

    use super::*;

    #[test]
    fn clerks_pause_when_a_queue_is_half_full() {
        let broker = Broker::builder().start().expect("a running broker");
        let (started, arrived) = std::sync::mpsc::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = std::sync::Mutex::new(released);
        let options = SubscribeOptions::new("*").concurrency(1).queue_capacity(10);
        let hold = move |_: &eventbroker::Delivery<'_>| {
            let _ = started.send(());
            // Returns when the test drops `release`.
            let _ = released.lock().expect("no handler panics").recv();
        };
        broker.subscribe_with(options, hold).expect("a subscription");
        let publish = || {
            let event = Event::builder(Source::Internal, "a.b").build().expect("a valid event");
            broker.publish(event).expect("accepted");
        };
        publish();
        arrived.recv_timeout(Duration::from_secs(30)).expect("the handler runs");
        for _ in 0..4 {
            publish();
        }
        assert!(has_room(&broker), "4 of 10");
        publish();
        assert!(!has_room(&broker), "5 of 10");
        drop(release);
    }
}
