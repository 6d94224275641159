//! A member: an instance that publishes and handles, and writes down what it does, until it is told that it is enough. It runs in a process
//! of its own, since that is what dies; so do the brokers of all providers.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, panic, process, thread};

use eventbroker::error::PublishError;
use eventbroker::{Broker, Config, Delivery, Event, HandlerError, RetryPolicy, Source};
use eventbroker_conformance::processes::{Ledger, PATIENCE, Site, work};

/// So long nobody is taken for dead who lives, even on a busy machine.
pub(crate) const LEASE: Duration = Duration::from_secs(5);
const PUBLISHERS: u64 = 2;
const KEYS: u64 = 5;
/// Time between two events of a publisher.
const PACE: Duration = Duration::from_millis(100);
/// A publisher waits no longer for a back end; then it does not know, and publishes the same again.
const DEADLINE: Duration = Duration::from_secs(2);
/// What an instance keeps of what is settled: little, so that its memory is in use soon.
const STORED: usize = 1_000;
/// One event in so many fails at first.
const FAILS: u64 = 50;

/// The files in which the members of one back end write down, and which tell them to end.
pub(crate) struct Files {
    /// `S PID`: it has started. `A ID KEY NUMBER`: it is about to publish. `R ID`: it was accepted. `U ID`: nobody knows. `E PID`: it
    /// publishes no more. `P …`: what should not be.
    pub(crate) published: PathBuf,
    /// `ID PID TIME`, at the end of each call; the time in milliseconds since 1970.
    pub(crate) handled: PathBuf,
    /// When it is there, nobody publishes any more.
    pub(crate) enough: PathBuf,
    /// When it is there, all stop.
    pub(crate) end: PathBuf,
}

impl Files {
    /// All of them, by the name of one.
    pub(crate) fn beside(handled: &Path) -> Self {
        let file = |name| handled.with_extension(name);
        Self { published: file("published"), handled: handled.to_owned(), enough: file("enough"), end: file("end") }
    }
}

/// Milliseconds since 1970, which all processes agree upon.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_millis() as u64
}

/// Does the work of a member of this back end.
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
    // Of other processes' keys, and of those that had this number before.
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

/// Publishes an event, and again with the same id as long as nobody says that it is accepted.
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
    // So that a fault finds something begun.
    thread::sleep(Duration::from_millis(number % 4));
    handled.write(&format!("{} {} {}", event.id(), process::id(), now()));
    Ok(())
}
