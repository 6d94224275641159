//! Processes that share a PostgreSQL database and die (the cases of every provider), and a server that dies.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::provider::Provider;
use eventbroker::{Event, Source};
use eventbroker_conformance::postgres::Server;
use eventbroker_conformance::processes::ledger::calls;
use eventbroker_conformance::processes::{Case, PATIENCE, Place, Scene, Site, run, wait_until};
use eventbroker_sql::Postgres;
use postgres::{Client, NoTls};

/// So soon after the server is there again everything goes on.
const RECOVERY: Duration = Duration::from_secs(3);

/// One server, started when it is needed: not by members.
static SERVER: OnceLock<Server> = OnceLock::new();

struct Databases;

struct Database(String);

impl Site for Databases {
    fn fresh(&self) -> Box<dyn Place> {
        Box::new(Database(SERVER.get_or_init(Server::start).database()))
    }

    fn open(&self, address: &str, lease: Duration) -> Provider {
        Postgres::new(address).lease_time(lease).open().expect("it opens")
    }
}

impl Place for Database {
    fn address(&self) -> &str {
        &self.0
    }

    fn deliveries(&self) -> Vec<String> {
        let mut client = Client::connect(&self.0, NoTls).expect("it connects");
        let query =
            "SELECT concat_ws(' ', position, claims, holder, token, state) FROM events_deliveries ORDER BY position";
        client.query(query, &[]).expect("rows").iter().map(|row| row.get(0)).collect()
    }
}

const CASES: &[Case] = &[("nothing is lost when the server crashes and when it cuts connections", crashing_server)];

fn main() {
    run(&Databases, CASES);
}

fn crashing_server(scene: &mut Scene<'_>) {
    const ROUNDS: usize = 4;
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
                }
            });
        }
        for round in 0..ROUNDS {
            let before = calls(&scene.ledger).len();
            wait_until("events are handled", || calls(&scene.ledger).len() > before + 20);
            thread::sleep(Duration::from_millis(scene.random.below(60)));
            if round % 2 == 0 {
                server.crash();
                thread::sleep(Duration::from_millis(300));
                server.up();
            } else {
                let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'eventbroker'";
                let mut client = Client::connect(scene.place.address(), NoTls).expect("it connects");
                let cut: i64 = client.query_one(cut, &[]).expect("a count").get(0);
                assert!(cut >= 1, "nobody was connected");
            }
            let back = Instant::now();
            // More than could have been answered before.
            let (published, handled) = (so_many(), calls(&scene.ledger).len());
            wait_until("it goes on", || so_many() > published + 8 && calls(&scene.ledger).len() > handled + 8);
            slowest = slowest.max(back.elapsed());
        }
        stop.store(true, Ordering::SeqCst);
    });
    let accepted = accepted.into_inner().expect("no panic under the lock");
    let handled = || -> BTreeSet<String> {
        calls(&scene.ledger).iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
    };
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
