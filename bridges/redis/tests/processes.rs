//! Processes that share a Redis stream and die (the cases of every provider), and a server that dies.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::provider::Provider;
use eventbroker::{Event, Source};
use eventbroker_conformance::processes::ledger::calls;
use eventbroker_conformance::processes::{Case, PATIENCE, Place, Scene, Site, run, wait_until};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

/// So soon after the server is there again everything goes on.
const RECOVERY: Duration = Duration::from_secs(3);

/// One server, started when it is needed: not by members.
static SERVER: OnceLock<Server> = OnceLock::new();

struct Streams;

/// The server's address and the name of a stream.
struct Stream(String);

impl Site for Streams {
    fn fresh(&self) -> Box<dyn Place> {
        let server = SERVER.get_or_init(Server::start);
        Box::new(Stream(format!("{} {}", server.url(), server.stream())))
    }

    fn open(&self, address: &str, lease: Duration) -> Provider {
        let (url, stream) = address.split_once(' ').expect("an address and a stream");
        Redis::new(url).stream_name(stream).lease_time(lease).max_len(0).open().expect("it opens")
    }

    fn keeps_order_across_members(&self) -> bool {
        false
    }
}

impl Place for Stream {
    fn address(&self) -> &str {
        &self.0
    }
}

const CASES: &[Case] = &[("nothing is lost when the server is killed and started again", crashing_server)];

fn main() {
    run(&Streams, CASES);
}

fn crashing_server(scene: &mut Scene<'_>) {
    const ROUNDS: usize = 3;
    let server = SERVER.get().expect("it runs");
    scene.declare();
    let _members = [scene.member("consumer"), scene.member("consumer")];
    let broker = scene.broker();
    let (accepted, stop) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
    let so_many = || accepted.lock().expect("no panic under the lock").len();
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let event = Event::builder(Source::System, "work.it").payload(&0).build().expect("a valid event");
                    // While the server is away, it may be that nobody knows: such an event is not counted.
                    if let Ok(held) = broker.publish(event) {
                        accepted.lock().expect("no panic under the lock").insert(held.id.to_string());
                    }
                    // The members can follow.
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        for _ in 0..ROUNDS {
            let before = calls(&scene.ledger).len();
            wait_until("events are handled", || calls(&scene.ledger).len() > before + 20);
            thread::sleep(Duration::from_millis(scene.random.below(60)));
            server.crash();
            thread::sleep(Duration::from_millis(300));
            server.up();
            let back = Instant::now();
            // More than could have been answered before.
            let (published, handled) = (so_many(), calls(&scene.ledger).len());
            wait_until("it goes on", || so_many() > published + 8 && calls(&scene.ledger).len() > handled + 8);
            slowest = slowest.max(back.elapsed());
        }
        stop.store(true, Ordering::SeqCst);
    });
    let accepted = accepted.into_inner().expect("no panic under the lock");
    let handled = || -> BTreeSet<String> { calls(&scene.ledger).into_iter().collect() };
    wait_until("all are handled", || handled().is_superset(&accepted));
    broker.stop(PATIENCE);
    let all = calls(&scene.ledger).len();
    let twice = all - handled().len();
    println!(
        "  {ROUNDS} faults, {} accepted, lost 0, handled twice {twice} of {all}, went on within {slowest:?}",
        accepted.len()
    );
    assert!(slowest < RECOVERY, "it went on {slowest:?} after the server was back");
}
