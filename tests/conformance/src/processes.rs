//! Processes that share a back end and die: the test's program starts itself again as a member, kills it by its handle, and holds
//! what the members wrote down against what was accepted ([`ledger`]). The same for every provider, which says in a test without
//! `harness` how its back end is made and opened:
//!
//! ```ignore
//! fn main() {
//!     eventbroker_conformance::processes::run(&Redis, &[]);
//! }
//! ```
//!
//! Each case prints its figures. `SEED=n` repeats a run, `KILLS=100`, `INSTANCES=4` and `EVENTS=100000` make more of it, and a word
//! among the arguments chooses the cases that have it in their names.

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

/// Short, so that what a dead member held is taken over soon.
pub const LEASE: Duration = Duration::from_millis(600);
/// Nothing takes longer, even on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A kind of back end.
pub trait Site: Sync {
    /// A new one, empty, which is gone when this is dropped. Its address is what a member needs to find it.
    fn fresh(&self) -> Box<dyn Place>;

    /// Opens the back end at an address, in whichever process.
    fn open(&self, address: &str, lease: Duration) -> Provider;

    /// Without a fault, each event is handled once.
    fn is_exact(&self) -> bool {
        true
    }

    /// No event of a key is handled before an earlier one, whichever members handle them.
    fn keeps_order_across_members(&self) -> bool {
        true
    }

    /// How long the name of a process that was killed may stay taken.
    fn name_stays(&self) -> Duration {
        LEASE
    }
}

impl dyn Site + '_ {
    /// Panics unless nothing was lost or made up; and nothing out of order, where that is kept.
    pub(crate) fn check(&self, account: &ledger::Account) {
        if self.keeps_order_across_members() {
            account.check();
        } else {
            account.check_but_for_order();
        }
    }
}

/// What happens to a back end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Its server dies, and is started again after a while.
    Crash,
    /// It stands still for a while.
    Freeze,
    /// It lets go of everybody who is connected.
    Disconnect,
}

/// One back end, as long as it is there.
pub trait Place {
    /// Where it is.
    fn address(&self) -> &str;

    /// Panics if it was damaged.
    fn check(&self) {}

    /// Stops the threads of a member where they are, but not where nobody else could go on.
    fn freeze(&self, member: &Member) {
        member.freeze(true);
    }

    /// What can be done to the back end, of which it recovers by itself.
    fn faults(&self) -> &'static [Fault] {
        &[]
    }

    /// Does one of these, for so long. It is over when this returns.
    fn suffer(&self, fault: Fault, _lasts: Duration) {
        panic!("nobody is here who could suffer this: {fault:?}");
    }

    /// Where its server listens on this machine.
    fn port(&self) -> Option<u16> {
        None
    }

    /// Its address by way of another port of this machine, where a [proxy](crate::proxy) may listen.
    fn address_by(&self, port: u16) -> String {
        panic!("there is no way by a port: {port}");
    }

    /// What is known of each delivery, in an order that does not change: whose it is and how it ended. Nothing where one who has lost a
    /// lease cannot be kept from settling.
    fn deliveries(&self) -> Vec<String> {
        Vec::new()
    }
}

/// What a case works with.
pub struct Scene<'a> {
    /// The kind of back end.
    pub site: &'a dyn Site,
    /// The back end.
    pub place: Box<dyn Place>,
    /// A folder for the files of the case.
    pub folder: Folder,
    /// Where the members write down what they handle.
    pub ledger: PathBuf,
    /// The numbers of this run.
    pub random: Random,
}

/// A case: what it shows, and how.
pub type Case = (&'static str, fn(&mut Scene<'_>));

/// Runs the cases of every provider, and those of its own; or does the work of a member.
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
    /// A broker of this process.
    pub fn broker(&self) -> Broker {
        let provider = self.site.open(self.place.address(), LEASE);
        Broker::builder().worker_count(4).provider(provider).start().expect("it starts")
    }

    /// A member in a role.
    pub fn member(&self, role: &str) -> Member {
        Member::start(role, self.place.address(), &self.ledger)
    }

    /// Makes the subscription known, so that events of the parent have somewhere to go.
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

/// Waits for something that gives no signal.
///
/// # Panics
/// If it takes longer than [`PATIENCE`].
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it did not come to pass: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Reproducible numbers.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The same numbers for the same seed.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// One below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// `SEED` of the environment, or another one each time; printed.
///
/// # Panics
/// If it is no number.
pub fn seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_nanos() as u64;
    let seed = setting("SEED", now);
    println!("SEED={seed}");
    seed
}

/// A number from the environment.
///
/// # Panics
/// If it is none.
pub fn setting(name: &str, otherwise: u64) -> u64 {
    env::var(name).map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}
