//! The ingest: claims deliveries, waits for more, and runs the chores ([`housekeeping`](crate::housekeeping)) in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, Demand, Ingest, Lease, Waker};
use redis::Value;

use super::claim_batch::{ClaimBatch, Lasts};
use super::claimer::{Claimer, is_gone};
use crate::housekeeping::Housekeeping;
use crate::partitions::Sharing;
use crate::scripts::Client;
use crate::subscriptions::{self, LocalSubscriptions};

/// The time that other members have to extend their leases after the server is back: the pauses of their connections and threads.
const RETURN: Duration = Duration::from_secs(2);
/// The first wait at the server.
const WAIT: Duration = Duration::from_millis(100);
/// The longest wait while nothing comes, and so the latency of the waker. Each is twice as long as the one before, so that an idle member seldom wakes.
const IDLE_WAIT: Duration = Duration::from_millis(250);

pub(crate) struct RedisIngest {
    sharing: Sharing,
    local: Arc<LocalSubscriptions>,
    housekeeping: Housekeeping,
    client: Client,
    is_woken: Arc<AtomicBool>,
    /// The time of the next take-over of expired leases.
    next_take_over: Instant,
    /// Until then other members may not have shown that they are alive, because the server was away.
    others_return: Instant,
    claimers: Vec<Claimer>,
}

impl RedisIngest {
    pub(crate) fn new(
        sharing: Sharing,
        local: Arc<LocalSubscriptions>,
        housekeeping: Housekeeping,
        client: Client,
    ) -> Self {
        let (is_woken, claimers, now) = (Arc::default(), Vec::new(), Instant::now());
        let (next_take_over, others_return) = (now, now);
        Self { sharing, local, housekeeping, client, is_woken, next_take_over, others_return, claimers }
    }

    /// Keeps one claimer for each subscription that is served.
    fn update_claimers(&mut self) {
        let local = self.local.all();
        self.claimers.retain(|it| local.iter().any(|served| served.xgroup == it.subscription.xgroup));
        for it in local {
            if !self.claimers.iter().any(|claimer| claimer.subscription.xgroup == it.xgroup) {
                self.claimers.push(Claimer::new(self.sharing.clone(), it));
            }
        }
    }

    /// Claims for every subscription with room. Deliveries that were claimed before a failure are returned.
    fn claim(&mut self, demand: &[Demand], take_over: bool, lasts: &mut Lasts) -> Result<Vec<Lease>, BackendError> {
        let mut leases = Vec::new();
        let others_return = Instant::now() < self.others_return;
        for claimer in &mut self.claimers {
            let name = &claimer.subscription.record.name;
            let Some(demand) = demand.iter().find(|demand| *demand.subscription == **name) else {
                if take_over {
                    claimer.release_idle(&mut self.client, others_return)?;
                }
                continue;
            };
            let mut batch = ClaimBatch::new(demand, take_over, &mut leases, lasts);
            match claimer.claim(&mut self.client, &mut batch, others_return) {
                Ok(()) => {}
                Err(error) if is_gone(&error) => {
                    subscriptions::restore(&mut self.client, &self.local, &claimer.subscription)?;
                    self.housekeeping.check_losses_soon();
                    lasts.clear();
                }
                Err(error) => return if leases.is_empty() { Err(error) } else { Ok(leases) },
            }
        }
        Ok(leases)
    }

    /// Waits for an entry after these, for a notification, for the waker, or until a chore is due.
    fn wait(&mut self, lasts: &Lasts, deadline: Instant) -> Result<(), BackendError> {
        let until = deadline.min(self.next_take_over).min(self.housekeeping.next());
        let mut longest = WAIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_woken.load(Ordering::SeqCst) {
                return Ok(());
            }
            let block = left.min(longest).as_millis().max(1) as u64;
            longest = (2 * longest).min(IDLE_WAIT);
            let mut read = redis::cmd("XREAD");
            read.arg("COUNT").arg(1).arg("BLOCK").arg(block).arg("STREAMS");
            lasts.keys().for_each(|key| _ = read.arg(key));
            lasts.values().for_each(|last| _ = read.arg(last));
            let found: Option<Value> = self.client.wait(&read)?;
            if found.is_some() {
                return Ok(());
            }
        }
    }

    fn claim_or_wait(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        let deadline = Instant::now() + wait;
        loop {
            let now = Instant::now();
            let take_over = now >= self.next_take_over;
            if take_over {
                self.next_take_over = now + self.sharing.membership.lease_time / 4;
            }
            self.housekeeping.run(&mut self.client)?;
            let mut lasts = Lasts::new();
            let leases = self.claim(demand, take_over, &mut lasts)?;
            if let Err(error) = self.housekeeping.check_losses(&mut self.client) {
                // Claimed deliveries are returned all the same.
                return if leases.is_empty() { Err(error) } else { Ok(leases) };
            }
            let now = Instant::now();
            if !leases.is_empty() || now >= deadline || self.is_woken.swap(false, Ordering::SeqCst) {
                return Ok(leases);
            }
            if lasts.is_empty() {
                // No subscription is registered.
                thread::sleep(WAIT.min(deadline - now));
            } else {
                self.wait(&lasts, deadline)?;
            }
        }
    }
}

impl Ingest for RedisIngest {
    fn receive(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        self.update_claimers();
        let received = self.claim_or_wait(demand, wait);
        if received.is_err() {
            // While the server was away no member could extend a lease: all get the time to do so before leases are taken over.
            self.others_return = Instant::now() + RETURN.max(self.sharing.membership.lease_time / 2);
            self.next_take_over = self.next_take_over.max(self.others_return);
        }
        received
    }

    fn wanted_back(&mut self) -> Vec<Arc<str>> {
        let claimers = self.claimers.iter_mut();
        claimers
            .filter_map(|it| it.claims.take_has_to_give_back().then(|| it.subscription.record.name.as_str().into()))
            .collect()
    }

    fn waker(&self) -> Option<Waker> {
        let is_woken = Arc::clone(&self.is_woken);
        Some(Arc::new(move || is_woken.store(true, Ordering::SeqCst)))
    }
}
