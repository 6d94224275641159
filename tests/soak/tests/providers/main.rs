//! F34: every provider under random faults, a quarter of the time without any, all of them at the same time: `scripts/soak all`. For each,
//! instances in processes of their own publish and handle; servers die, stand still and let go, answers are lost, members die. Checked in
//! each quiet time and at the end: nothing lost, nothing made up, nothing handled again but what was under way at a fault, keys in order where
//! that is promised, memory, descriptors and threads constant. It prints a table, and ends with 1 if a bound does not hold.
//!
//! `MINUTES=60` has it run so long; without, it is a short form of half a minute. What takes less than half an hour shows how memory grows, and does not
//! judge it. `SEED=n` repeats the faults. A word among the arguments chooses the providers that have it in their names.

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

/// One process; what it holds goes with it.
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

/// How many handled entries a Redis stream keeps: few, so that it is trimmed all the time.
const MAX_LEN: u64 = 1_000;

static REDIS: redis_streams::Streams = redis_streams::Streams::new(0, MAX_LEN);
static REDIS_IN_PARTS: redis_streams::Streams = redis_streams::Streams::new(6, MAX_LEN);
static NATS: nats_streams::Streams = nats_streams::Streams::new(0);
static NATS_IN_PARTS: nats_streams::Streams = nats_streams::Streams::new(6);

/// A provider, how many instances share it, and how soon it knows for good what was handled.
struct Subject {
    name: &'static str,
    site: &'static dyn Site,
    instances: usize,
    under_way: Duration,
}

/// A verdict is with the server at once, and stays there when that dies.
const AT_ONCE: Duration = Duration::from_secs(1);
/// A server that dies while it writes down what was acknowledged forgets all of that; the members note it each half of a lease, up to the first
/// that is not acknowledged, which is one that somebody's lease is on.
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
    // A run that has panicked has said why; the others still have their figures.
    let all_ended = reports.iter().all(Option::is_some);
    let reports: Vec<_> = reports.into_iter().flatten().collect();
    let held = report::print(&plan, &reports) && all_ended;
    println!("{}", if held { "every bound holds" } else { "a bound does not hold" });
    ExitCode::from(u8::from(!held))
}
