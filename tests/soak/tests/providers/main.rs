//! F34: every provider under random faults at the same time, with a quarter of the time free of faults: `scripts/soak
//! all`. Member processes publish and handle. Servers are killed and frozen and close their connections, answers are
//! lost, members are killed and frozen. Checked in each quiet time and at the end: nothing is lost or made up, only
//! deliveries in flight at a fault are repeated, keys are in order where promised, and memory, descriptors and threads
//! are constant. Prints a table, and exits with 1 if a bound does not hold.
//!
//! `MINUTES=60` sets the duration; the default is a short form of half a minute. A run under half an hour prints the
//! growth of memory without enforcing its bound. `SEED=n` repeats the faults. A word among the arguments selects the
//! providers whose names contain it.

mod books;
#[path = "../../../../bridges/sql/tests/processes/databases.rs"]
mod databases;
#[path = "../../../../bridges/sql/tests/processes/files.rs"]
mod files;
mod member;
#[path = "../../../../bridges/nats/tests/processes/streams.rs"]
mod nats_streams;
#[path = "../../../../bridges/redis/tests/processes/streams.rs"]
mod redis_streams;
mod report;
mod run;
mod samples;

use std::process::ExitCode;
use std::time::Duration;
use std::{env, thread};

use eventbroker::provider::Provider;
use eventbroker_conformance::processes::{Place, Random, Site, is_member, seed, setting};

use run::Plan;

/// The memory provider: one process, whose events end with it.
struct Memory;

impl Site for Memory {
    fn fresh(&self) -> Box<dyn Place> {
        Box::new(Self)
    }

    fn open(&self, _address: &str, _lease: Duration) -> Provider {
        Provider::memory()
    }
}

impl Place for Memory {
    fn address(&self) -> &str {
        ""
    }
}

/// Handled entries kept in a Redis stream. Few, so that the stream is trimmed all the time.
const MAX_LEN: u64 = 1_000;

static REDIS: redis_streams::Streams = redis_streams::Streams::new(0, MAX_LEN);
static REDIS_IN_PARTS: redis_streams::Streams = redis_streams::Streams::new(6, MAX_LEN);
static NATS: nats_streams::Streams = nats_streams::Streams::new(0);
static NATS_IN_PARTS: nats_streams::Streams = nats_streams::Streams::new(6);

/// A provider, the number of its instances, and the time after which a verdict is durable.
struct Subject {
    name: &'static str,
    site: &'static dyn Site,
    instances: usize,
    under_way: Duration,
}

/// The server stores a verdict at once, and keeps it when killed.
const AT_ONCE: Duration = Duration::from_secs(1);
/// A NATS server killed while it writes a consumer's state forgets acknowledgements. The members record the ack floor
/// each half of a lease, up to the first message that is not acknowledged, which is under a lease.
const NOTED: Duration = member::LEASE.saturating_mul(2);

static SUBJECTS: [Subject; 7] = [
    Subject { name: "memory", site: &Memory, instances: 1, under_way: AT_ONCE },
    Subject { name: "sqlite", site: &files::Files, instances: 3, under_way: AT_ONCE },
    Subject { name: "postgres", site: &databases::Databases, instances: 3, under_way: AT_ONCE },
    Subject { name: "redis", site: &REDIS, instances: 3, under_way: AT_ONCE },
    Subject { name: "redis-6", site: &REDIS_IN_PARTS, instances: 3, under_way: AT_ONCE },
    Subject { name: "nats", site: &NATS, instances: 3, under_way: NOTED },
    Subject { name: "nats-6", site: &NATS_IN_PARTS, instances: 3, under_way: NOTED },
];

fn main() -> ExitCode {
    if is_member() {
        let name = env::var("MEMBER").expect("the parent gives it");
        let subject = SUBJECTS.iter().find(|it| it.name == name).expect("a provider");
        member::run(subject.site);
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<String> = env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let seed = seed();
    let plan = Plan::of_minutes(setting("MINUTES", 0));
    println!("{plan}");
    let reports: Vec<_> = thread::scope(|scope| {
        let chosen = SUBJECTS
            .iter()
            .zip(1..)
            .filter(|(subject, _)| wanted.is_empty() || wanted.iter().any(|it| subject.name.contains(it.as_str())));
        let runs: Vec<_> = chosen
            .map(|(subject, number)| {
                let plan = &plan;
                scope.spawn(move || run::run(subject, plan, Random::new(seed.rotate_left(8 * number))))
            })
            .collect();
        runs.into_iter().map(|run| run.join().ok()).collect()
    });
    // A run that panicked has printed its message; the figures of the others are still reported.
    let all_ended = reports.iter().all(Option::is_some);
    let reports: Vec<_> = reports.into_iter().flatten().collect();
    let held = report::print(&plan, &reports) && all_ended;
    println!("{}", if held { "every bound holds" } else { "a bound does not hold" });
    ExitCode::from(u8::from(!held))
}
