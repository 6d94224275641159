//! The way in: claims what is ready, waits for more, and sees to what nobody else does. How one subscription's deliveries are claimed is told in
//! [`claim`](crate::claim), what is seen to beside that in [`upkeep`](crate::upkeep) and [`watch`](crate::watch).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, Demand, Ingest, Lease, Waker};
use redis::Value;

use crate::claim::{Claimer, Haul, Lasts, is_gone};
use crate::connection::{Database, Link};
use crate::subscriptions;
use crate::upkeep::Upkeep;
use crate::watch::Watch;

/// How long those who live may take to show it when the server is back: their connections' pauses, and those of their threads.
const RETURN: Duration = Duration::from_secs(2);
/// The first wait at the server.
const WAIT: Duration = Duration::from_millis(100);
/// The longest wait while nothing comes, and so the latency of the waker. Each wait is twice as long as the one before, so that an idle
/// member seldom wakes.
const IDLE_WAIT: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(crate) struct RedisIngest {
    database: Arc<Database>,
    link: Link,
    watch: Watch,
    upkeep: Upkeep,
    /// When it looks again whether others have lost something.
    next_care: Instant,
    /// Until then others may have to say first that they are alive, because the server was away.
    others_return: Instant,
    claimers: Vec<Claimer>,
}

impl RedisIngest {
    pub(crate) fn new(database: &Arc<Database>) -> Self {
        let link = Link::new(database);
        let (watch, upkeep) = (Watch::new(database), Upkeep::new(database));
        let (database, next_care) = (Arc::clone(database), Instant::now());
        Self { database, link, watch, upkeep, next_care, others_return: next_care, claimers: Vec::new() }
    }

    /// One claimer for each subscription that is served.
    fn follow(&mut self) {
        let served = self.database.served.lock();
        self.claimers.retain(|it| served.values().any(|served| served.unit == it.served().unit));
        for it in served.values() {
            if !self.claimers.iter().any(|claimer| claimer.served().unit == it.unit) {
                self.claimers.push(Claimer::new(&self.database, it.clone()));
            }
        }
    }

    /// Claims what is ready. What was claimed before an answer was lost is returned all the same.
    fn claim(&mut self, demand: &[Demand], take_over: bool, lasts: &mut Lasts) -> Result<Vec<Lease>, BackendError> {
        let mut leases = Vec::new();
        let others_return = Instant::now() < self.others_return;
        for claimer in &mut self.claimers {
            claimer.others_return = others_return;
            let Some(demand) = demand.iter().find(|demand| *demand.subscription == *claimer.served().info.name) else {
                claimer.tell_reads(&mut self.link)?;
                if take_over {
                    claimer.stand_aside(&mut self.link)?;
                }
                continue;
            };
            let claimed = claimer.claim(&mut self.link, &mut Haul::new(demand, take_over, &mut leases, lasts));
            claimer.took().iter().for_each(|number| self.watch.took(&claimer.served().unit, *number));
            match claimed {
                Ok(()) => {}
                Err(error) if is_gone(&error) => {
                    // Somebody has removed the stream: what is in the new one was not seen by anybody.
                    subscriptions::make(&mut self.link, claimer.served(), true, &["0".to_owned()])?;
                    self.watch.hurry();
                    lasts.clear();
                }
                Err(error) => return if leases.is_empty() { Err(error) } else { Ok(leases) },
            }
        }
        Ok(leases)
    }

    /// Waits until something is stored after these entries, somebody rings or wakes it, or there is something to see to.
    fn wait(&mut self, lasts: &Lasts, deadline: Instant) -> Result<(), BackendError> {
        let until = deadline.min(self.next_care).min(self.upkeep.next()).min(self.watch.next());
        let mut longest = WAIT;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.database.woken.load(Ordering::SeqCst) {
                return Ok(());
            }
            let block = left.min(longest).as_millis().max(1) as u64;
            longest = (2 * longest).min(IDLE_WAIT);
            let heard = self.link.wait(|connection| {
                let mut read = redis::cmd("XREAD");
                read.arg("COUNT").arg(1).arg("BLOCK").arg(block).arg("STREAMS");
                lasts.keys().for_each(|key| _ = read.arg(key));
                lasts.values().for_each(|last| _ = read.arg(last));
                read.query(connection)
            })?;
            if heard != Value::Nil {
                return Ok(());
            }
        }
    }

    fn look(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        let deadline = Instant::now() + wait;
        loop {
            let now = Instant::now();
            let take_over = now >= self.next_care;
            if take_over {
                self.next_care = now + self.database.lease_time / 4;
            }
            self.upkeep.see_to(&mut self.link)?;
            let mut lasts = Lasts::new();
            let leases = self.claim(demand, take_over, &mut lasts)?;
            if let Err(error) = self.watch.look(&mut self.link) {
                // What was claimed is returned all the same.
                return if leases.is_empty() { Err(error) } else { Ok(leases) };
            }
            let now = Instant::now();
            if !leases.is_empty() || now >= deadline || self.database.woken.swap(false, Ordering::SeqCst) {
                return Ok(leases);
            }
            if lasts.is_empty() {
                // Nobody is registered yet.
                thread::sleep(WAIT.min(deadline - now));
            } else {
                self.wait(&lasts, deadline)?;
            }
        }
    }
}

impl Ingest for RedisIngest {
    fn receive(&mut self, demand: &[Demand], wait: Duration) -> Result<Vec<Lease>, BackendError> {
        self.follow();
        let received = self.look(demand, wait);
        if received.is_err() {
            // While the server was away nobody could extend a lease: those who live do so before anybody is taken for dead.
            self.others_return = Instant::now() + RETURN.max(self.database.lease_time / 2);
            self.next_care = self.next_care.max(self.others_return);
        }
        received
    }

    fn wanted_back(&mut self) -> Vec<Arc<str>> {
        let wanted =
            self.claimers.iter_mut().filter_map(|it| it.wants_back().then(|| it.served().info.name.as_str().into()));
        wanted.collect()
    }

    fn waker(&self) -> Option<Waker> {
        let database = Arc::clone(&self.database);
        Some(Arc::new(move || database.woken.store(true, Ordering::SeqCst)))
    }
}
