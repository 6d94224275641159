//! Each event of a fleet reaches the other fleet once, even if the forwarding process is killed.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::query::Filter;
use eventbroker::{Broker, Event, Source, Status, SubscribeOptions};
use eventbroker_conformance::{nats, redis};
use eventbroker_nats::Nats;
use eventbroker_redis::Redis;

const EACH: usize = 200;
const PATIENCE: Duration = Duration::from_secs(60);

/// A process of the example. Killed on drop.
struct Carrier(Child);

impl Carrier {
    /// Starts a process and waits until it forwards events.
    fn start(redis: &str, nats: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_eventbroker-example-two-fleets"));
        let mut child =
            command.args([redis, nats]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
        let said = BufReader::new(child.stdout.take().expect("its output")).lines().next();
        assert_eq!(said.expect("a line").expect("a text"), "carrying");
        Self(child)
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The handler calls of each event in a fleet, and the event's origin mark.
type Handled = Arc<Mutex<BTreeMap<String, (usize, Option<String>)>>>;

fn listen(broker: &Broker) -> Handled {
    let handled = Handled::default();
    let sink = Arc::clone(&handled);
    broker
        .subscribe_with(SubscribeOptions::new("shop.**").name("work"), move |delivery| {
            let event = delivery.event();
            let mark = event.metadata().get("fleet").and_then(|it| it.as_str()).map(str::to_owned);
            let mut handled = sink.lock().expect("no panic under the lock");
            handled.entry(event.id().to_string()).or_insert((0, mark)).0 += 1;
        })
        .expect("a subscription");
    handled
}

fn wait_until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "timed out waiting until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn events_of_either_fleet_reach_the_other_one_once() {
    let (redis_server, nats_server) = (redis::Server::start(), nats::Server::start());
    let urls = (redis_server.url(), nats_server.url());
    let lease = Duration::from_secs(5);
    let start = |provider| Broker::builder().provider(provider).start().expect("it starts");
    let fleets = [
        start(Redis::new(&urls.0).lease_time(lease).open().expect("it opens")),
        start(Nats::new(&urls.1).lease_time(lease).open().expect("it opens")),
    ];
    let handled = [listen(&fleets[0]), listen(&fleets[1])];
    let count = |at: usize| handled[at].lock().expect("no panic under the lock").len();
    let mut carrier = Some(Carrier::start(&urls.0, &urls.1));
    let publish = |fleet: &Broker, number: usize| {
        let event =
            Event::builder(Source::System, "shop.orders.create").key(format!("k{}", number % 5)).payload(&number);
        fleet.publish(event.build().expect("a valid event")).expect("it is accepted");
    };
    thread::scope(|scope| {
        for fleet in &fleets {
            scope.spawn(move || (0..EACH).for_each(|number| publish(fleet, number)));
        }
        // The process is killed while it forwards.
        wait_until("some are carried", || {
            count(0) + count(1) > 2 * EACH + EACH / 4 || count(0) > EACH && count(1) > EACH
        });
        drop(carrier.take());
        carrier = Some(Carrier::start(&urls.0, &urls.1));
    });
    wait_until("all are carried", || count(0) == 2 * EACH && count(1) == 2 * EACH);
    fleets.iter().for_each(|fleet| publish(fleet, EACH));
    wait_until("the last are carried", || count(0) == 2 * EACH + 2 && count(1) == 2 * EACH + 2);
    // The events that the killed process held are redelivered after its lease.
    let is_open = |status| {
        let filter = Filter { status: Some(status), ..Filter::default() };
        fleets.iter().any(|fleet| !fleet.list(&filter).expect("it answers").events.is_empty())
    };
    wait_until("all is settled", || !is_open(Status::Pending) && !is_open(Status::Processing));
    for (at, origin) in [(0, "nats"), (1, "redis")] {
        let handled = handled[at].lock().expect("no panic under the lock");
        assert!(handled.values().all(|(times, _)| *times == 1), "an event was handled twice in fleet {at}");
        let carried = handled.values().filter(|(_, mark)| mark.as_deref() == Some(origin)).count();
        let own = handled.values().filter(|(_, mark)| mark.is_none()).count();
        assert_eq!((carried, own), (EACH + 1, EACH + 1), "the events from {origin}, and its own");
        let page = fleets[at].list(&Filter { limit: Some(10_000), ..Filter::default() }).expect("it answers");
        assert_eq!(page.events.len(), 2 * EACH + 2, "nothing is stored twice");
        assert_eq!(fleets[at].dead_letter_count(), Ok(0), "no event was forwarded back to its origin");
    }
    drop(carrier);
    assert!(fleets.iter().all(|fleet| fleet.stop(PATIENCE).is_clean()));
}
