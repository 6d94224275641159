//! A member: a process with one broker, which publishes and handles events and logs both, until files tell it to stop.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, panic, process, thread};

use eventbroker::error::PublishError;
use eventbroker::{Broker, Config, Delivery, Event, HandlerError, RetryPolicy, Source};
use eventbroker_conformance::processes::{Ledger, PATIENCE, Site, work};

/// The lease time. Long enough that a live member does not lose a lease on a busy machine.
pub(crate) const LEASE: Duration = Duration::from_secs(5);
const PUBLISHERS: u64 = 2;
const KEYS: u64 = 5;
/// Time between two events of a publisher.
const PACE: Duration = Duration::from_millis(100);
/// The `sync_timeout`: after this time a publish is unknown and is repeated with the same id.
const DEADLINE: Duration = Duration::from_secs(2);
/// `max_events` of an instance. Small, so that its store is full soon.
const STORED: usize = 1_000;
/// One event in this many fails at its first attempt.
const FAILS: u64 = 50;

/// The logs of the members of one back end, and the files that stop them.
pub(crate) struct Files {
    /// `S PID`: started. `A ID KEY NUMBER`: a publish begins. `R ID`: accepted. `U ID`: unknown. `E PID`: publishes no
    /// more. `P …`: a panic or an unclean stop.
    pub(crate) published: PathBuf,
    /// `ID PID TIME` at the end of each call; the time in milliseconds since 1970.
    pub(crate) handled: PathBuf,
    /// Its existence stops all publishers.
    pub(crate) enough: PathBuf,
    /// Its existence stops all members.
    pub(crate) end: PathBuf,
}

impl Files {
    /// The files beside the log of calls.
    pub(crate) fn beside(handled: &Path) -> Self {
        let file = |name| handled.with_extension(name);
        Self { published: file("published"), handled: handled.to_owned(), enough: file("enough"), end: file("end") }
    }
}

/// Milliseconds since 1970, the same in all processes.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_millis() as u64
}

/// Runs a member of this back end until it is stopped.
pub(crate) fn run(site: &dyn Site) {
    let setting = |name| env::var(name).expect("the parent gives it");
    let files = Files::beside(Path::new(&setting("LEDGER")));
    let complaints = Ledger::open(&files.published);
    panic::set_hook(Box::new(move |problem| complaints.write(&format!("P {problem}").replace('\n', " "))));
    let provider = site.open(&setting("ADDRESS"), LEASE);
    let mut config = Config::default();
    (config.worker_count, config.max_events, config.sync_timeout) = (4, STORED, DEADLINE);
    let broker = Broker::builder().config(config).provider(provider).start().expect("it starts");
    let handled = Ledger::open(&files.handled);
    let options = work().retry(RetryPolicy::fixed(1_000, Duration::from_millis(100)));
    broker.subscribe_with(options, move |delivery| handle(delivery, &handled)).expect("a subscription");
    let published = Ledger::open(&files.published);
    published.write(&format!("S {}", process::id()));
    // Distinguishes keys of other processes, also of earlier ones with the same process id.
    let boot = format!("{}-{}", process::id(), now());
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let (broker, files, published, boot) = (&broker, &files, &published, &boot);
            scope.spawn(move || {
                for number in 0.. {
                    if files.enough.exists() {
                        return;
                    }
                    publish(broker, published, &format!("{boot}-{publisher}-{}", number % KEYS), number);
                    thread::sleep(PACE);
                }
            });
        }
    });
    published.write(&format!("E {}", process::id()));
    while !files.end.exists() {
        thread::sleep(Duration::from_millis(20));
    }
    let report = broker.stop(PATIENCE);
    if !report.is_clean() {
        published.write(&format!("P {report:?}").replace('\n', " "));
    }
}

/// Publishes an event, and repeats it with the same id until it is accepted.
fn publish(broker: &Broker, published: &Ledger, key: &str, number: u64) {
    let event = Event::builder(Source::System, "work.it").key(key).payload(&number).build();
    let mut event = event.expect("a valid event");
    let id = event.id().to_string();
    published.write(&format!("A {id} {key} {number}"));
    loop {
        match broker.publish(event) {
            Ok(_) => return published.write(&format!("R {id}")),
            Err(error) => {
                if matches!(error, PublishError::Unknown { .. }) {
                    published.write(&format!("U {id}"));
                }
                event = error.into_event();
            }
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn handle(delivery: &Delivery<'_>, handled: &Ledger) -> Result<(), HandlerError> {
    let event = delivery.event();
    let number: u64 = event.payload_as()?;
    if number % FAILS == 7 && delivery.attempt() == 1 {
        return Err(HandlerError::retry("not yet"));
    }
    // Calls of up to 3 ms, so that a fault hits running ones.
    thread::sleep(Duration::from_millis(number % 4));
    handled.write(&format!("{} {} {}", event.id(), process::id(), now()));
    Ok(())
}
