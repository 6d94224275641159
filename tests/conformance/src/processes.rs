//! Fault tests with processes that share a back end: the test program starts itself again as a member, kills or freezes
//! it, and compares the events that the members logged with the accepted ones ([`ledger`]). The cases are the same for
//! every provider, whose test without `harness` defines how to create and open its back end:
//!
//! ```ignore
//! fn main() {
//!     eventbroker_conformance::processes::run(&Redis, &[]);
//! }
//! ```
//!
//! Each case prints its figures. `SEED=n` repeats the random choices of a run. `KILLS=100`, `INSTANCES=4` and
//! `EVENTS=100000` set its size. A word among the arguments selects the cases whose names contain it.

mod cases;
pub mod ledger;
mod members;

use std::env;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use eventbroker::provider::Provider;
use eventbroker::{Broker, SubscribeOptions};

pub use ledger::Ledger;
pub use members::{Folder, Member, Resources, is_member};

/// The lease time of members. Short, so that the deliveries of a dead member are taken over soon.
pub const LEASE: Duration = Duration::from_millis(600);
/// Deadline of every wait, generous for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A kind of back end.
pub trait Site: Sync {
    /// Creates an empty back end, which is removed on drop. Members find it by its address.
    fn fresh(&self) -> Box<dyn Place>;

    /// Opens the back end at an address, in the parent or in a member.
    fn open(&self, address: &str, lease: Duration) -> Provider;

    /// Whether each event is handled once without a fault. Default true.
    fn is_exact(&self) -> bool {
        true
    }

    /// Whether the order of a key holds across members. Default true.
    fn keeps_order_across_members(&self) -> bool {
        true
    }

    /// How long the instance name of a killed process may stay taken.
    fn name_stays(&self) -> Duration {
        LEASE
    }
}

impl dyn Site + '_ {
    /// Panics if an event was lost or made up, or out of order where order is kept across members.
    pub(crate) fn check(&self, account: &ledger::Account) {
        if self.keeps_order_across_members() {
            account.check();
        } else {
            account.check_but_for_order();
        }
    }
}

/// A fault of a back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The server is killed, and started again after a while.
    Crash,
    /// The server is frozen for a while.
    Freeze,
    /// The server closes all connections.
    Disconnect,
}

/// One back end, removed on drop.
pub trait Place {
    /// The address by which members open it.
    fn address(&self) -> &str;

    /// Panics if the stored data is damaged.
    fn check(&self) {}

    /// Freezes a member, but not while it holds a lock that blocks all other members.
    fn freeze(&self, member: &Member) {
        member.freeze(true);
    }

    /// The faults that the back end recovers from by itself.
    fn faults(&self) -> &'static [Fault] {
        &[]
    }

    /// Injects one of these faults for this long. Returns when the fault is over.
    fn suffer(&self, fault: Fault, _lasts: Duration) {
        panic!("this back end has no such fault: {fault:?}");
    }

    /// The local port of its server, if it has one.
    fn port(&self) -> Option<u16> {
        None
    }

    /// Its address with another local port, on which a [proxy](crate::proxy) may listen.
    fn address_by(&self, port: u16) -> String {
        panic!("this back end has no port: {port}");
    }

    /// The stored state of each delivery in a stable order: its holder and its outcome. Empty where the back end cannot
    /// refuse the verdict of a lost lease.
    fn deliveries(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The environment of a case.
pub struct Scene<'a> {
    /// The kind of back end.
    pub site: &'a dyn Site,
    /// The back end.
    pub place: Box<dyn Place>,
    /// A folder for the files of the case.
    pub folder: Folder,
    /// The file to which members append the events that they handle.
    pub ledger: PathBuf,
    /// The random numbers of this run.
    pub random: Random,
}

/// A case: its name, and its function.
pub type Case = (&'static str, fn(&mut Scene<'_>));

/// Runs the common cases and those of the provider; in a member process, runs the member.
///
/// # Panics
/// If a case fails.
pub fn run(site: &dyn Site, own: &[Case]) {
    if is_member() {
        return members::work_of_environment(site);
    }
    let seed = seed();
    let wanted: Vec<String> = env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    for (name, case) in cases::CASES.iter().chain(own) {
        if wanted.is_empty() || wanted.iter().any(|it| name.contains(it.as_str())) {
            println!("{name}");
            let folder = Folder::new();
            let ledger = folder.file("ledger");
            case(&mut Scene { site, place: site.fresh(), ledger, folder, random: Random::new(seed) });
        }
    }
}

impl fmt::Debug for Scene<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scene").field("address", &self.place.address()).finish_non_exhaustive()
    }
}

impl Scene<'_> {
    /// Starts a broker in this process.
    pub fn broker(&self) -> Broker {
        let provider = self.site.open(self.place.address(), LEASE);
        Broker::builder().worker_count(4).provider(provider).start().expect("it starts")
    }

    /// Starts a member in a role.
    pub fn member(&self, role: &str) -> Member {
        Member::start(role, self.place.address(), &self.ledger)
    }

    /// Registers the subscription, so that events published before the first member are kept for it.
    pub fn declare(&self) {
        let broker = self.broker();
        let id = broker.subscribe_with(work(), |_| ()).expect("a subscription");
        broker.unsubscribe(id).expect("it is there");
        broker.stop(PATIENCE);
    }
}

/// The subscription of every member.
pub fn work() -> SubscribeOptions {
    SubscribeOptions::new("work.**").name("work").concurrency(4)
}

/// Polls a condition every 5 ms until it holds.
///
/// # Panics
/// If it takes longer than [`PATIENCE`].
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reproducible pseudo-random numbers (xorshift64).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A generator that yields the same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// The next number, below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// `SEED` of the environment, or the current time; prints it.
///
/// # Panics
/// If `SEED` is not a number.
pub fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_nanos() as u64;
    let seed = setting("SEED", now);
    println!("SEED={seed}");
    seed
}

/// A number from the environment, or a default.
///
/// # Panics
/// If the variable is not a number.
pub fn setting(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}
