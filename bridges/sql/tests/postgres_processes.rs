//! Processes that share a database and die, and a server that dies: this program starts itself again as a member, kills it by its
//! handle, and looks at what the members wrote down and at what is in the tables. Each case prints its figures.
//!
//! `KILLS=100` makes more of the kills, `SEED=n` repeats a run.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use eventbroker::{Broker, Event, Source, SubscribeOptions};
use eventbroker_conformance::postgres::Server;
use eventbroker_sql::Postgres;
use postgres::{Client, NoTls};
use support::Folder;
use support::processes::{Ledger, Member, PATIENCE, Random, kills, lines, sleep_for_ever, wait_until};

mod support;

/// Short, so that what a dead member held is taken over soon.
const LEASE: Duration = Duration::from_millis(900);
/// So soon after the server is there again everything goes on.
const RECOVERY: Duration = Duration::from_secs(3);

/// What it shows, and how.
type Case = (&'static str, fn(&Server, &mut Random));

const CASES: &[Case] = &[
    ("two processes share the events, and one takes over what the other had when it was killed", killed_consumers),
    ("a member that was frozen for three leases changes nothing afterwards", frozen),
    ("what was accepted is there after the publisher was killed", killed_publishers),
    ("nothing is lost when the server crashes and when it cuts connections", crashing_server),
];

fn main() {
    if let Ok(role) = env::var("MEMBER") {
        let url = env::var("FILE").expect("the address of the database");
        let ledger = Ledger::open(&PathBuf::from(env::var("LEDGER").expect("the file to write down in")));
        return if role == "consumer" { consume(&url, ledger) } else { publish(&url, &ledger) };
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_nanos() as u64;
    let seed = env::var("SEED").map_or(now, |seed| seed.parse().expect("SEED is a number"));
    println!("SEED={seed}");
    let wanted: Vec<String> = env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let server = Server::start();
    for (name, case) in CASES {
        if wanted.is_empty() || wanted.iter().any(|it| name.contains(it.as_str())) {
            println!("{name}");
            case(&server, &mut Random(seed | 1));
        }
    }
}

fn broker(url: &str) -> Broker {
    let postgres = Postgres::new(url).lease_time(LEASE).open().expect("it opens");
    Broker::builder().worker_count(4).provider(postgres).start().expect("it starts")
}

fn work() -> SubscribeOptions {
    SubscribeOptions::new("work.**").name("work").concurrency(4)
}

/// Makes the subscription known, so that events of the parent have somewhere to go.
fn declare(url: &str) {
    let broker = broker(url);
    let id = broker.subscribe_with(work(), |_| ()).expect("a subscription");
    broker.unsubscribe(id).expect("it is there");
    broker.stop(PATIENCE);
}

/// A member: handles each event and writes its id, its key and its number down.
fn consume(url: &str, ledger: Ledger) {
    let broker = broker(url);
    broker
        .subscribe_with(work(), move |delivery| {
            let event = delivery.event();
            let number: u64 = event.payload_as().expect("a number");
            // So that a kill finds something begun.
            thread::sleep(Duration::from_millis(1));
            ledger.write(&format!("{} {} {number}", event.id(), event.key().unwrap_or("-")));
        })
        .expect("a subscription");
    sleep_for_ever()
}

/// Publishes from four threads, and writes down what was accepted.
fn publish(url: &str, ledger: &Ledger) {
    let broker = broker(url);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let event = Event::builder(Source::System, "work.it").payload(&0).build().expect("a valid event");
                    // While the server is away, it may be that nobody knows: such an event is not counted.
                    if let Ok(accepted) = broker.publish(event) {
                        ledger.write(&accepted.id.to_string());
                    }
                }
            });
        }
    });
}

fn count(url: &str, query: &str) -> i64 {
    Client::connect(url, NoTls).and_then(|mut client| client.query_one(query, &[])).map_or(-1, |row| row.get(0))
}

fn handled(ledger: &std::path::Path) -> BTreeSet<String> {
    lines(ledger).iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
}

fn killed_consumers(server: &Server, random: &mut Random) {
    const KEYS: u64 = 10;
    let (folder, url) = (Folder::new(), server.database());
    let ledger = folder.file("ledger");
    declare(&url);
    let parent = broker(&url);
    let mut members: Vec<Member> = (0..2).map(|_| Member::start("consumer", &url, &ledger)).collect();
    let (mut sent, mut killed, mut number) = (BTreeMap::new(), 0, 0);
    let rounds = kills(6);
    for round in 0..=rounds {
        let events: Vec<Event> = (0..150)
            .map(|_| {
                number += 1;
                let key = format!("k{}", random.below(KEYS));
                let event = Event::builder(Source::System, "work.it").key(&key).payload(&number).build();
                let event = event.expect("a valid event");
                sent.insert(event.id().to_string(), (key, number));
                event
            })
            .collect();
        assert!(parent.publish_batch(events).iter().all(Result::is_ok));
        if round < rounds {
            let before = lines(&ledger).len();
            wait_until("somebody works", || lines(&ledger).len() > before || lines(&ledger).len() >= sent.len());
            // Not always at the same moment, or the same event would look like the killer.
            thread::sleep(Duration::from_millis(random.below(60)));
            let victim = random.below(2) as usize;
            members[victim].kill();
            killed += 1;
            members[victim] = Member::start("consumer", &url, &ledger);
        }
    }
    let last_kill = Instant::now();
    wait_until("all are handled", || handled(&ledger).len() >= sent.len());
    let took = last_kill.elapsed();
    let blamed = "SELECT count(*) FROM events_deliveries WHERE state = 3 AND reason = 'crash_loop' AND crashes = 3";
    wait_until("all are completed", || {
        let completed = count(&url, "SELECT count(*) FROM events WHERE status = 'completed'");
        (completed + count(&url, blamed)) as usize == sent.len()
    });
    let blamed = count(&url, blamed);
    assert!(blamed as u64 <= killed / 3, "{blamed} were blamed for {killed} kills");
    drop(members);
    parent.stop(PATIENCE);
    // The first call of each event, in the order of the ledger, is in the order of its key.
    let (mut seen, mut last, mut repeated) = (BTreeSet::new(), BTreeMap::new(), 0);
    for line in lines(&ledger) {
        let id = line.split(' ').next().expect("an id");
        let (key, number) = sent.get(id).expect("nothing came that was not sent");
        if !seen.insert(id.to_owned()) {
            repeated += 1;
            continue;
        }
        let before = last.insert(key.clone(), *number).unwrap_or(0);
        assert!(before < *number, "of {key}, {number} came after {before}");
    }
    let taken_over = count(&url, "SELECT count(*) FROM events_deliveries WHERE claims > 1");
    assert!(taken_over > 0, "no kill has met a member that held something");
    println!(
        "  {} events, {killed} kills, lost 0, taken over {taken_over}, handled twice {repeated}, blamed {blamed}, all within {took:?} of the end",
        sent.len()
    );
}

fn frozen(server: &Server, _random: &mut Random) {
    const EVENTS: u64 = 200;
    let (folder, url) = (Folder::new(), server.database());
    let ledger = folder.file("ledger");
    declare(&url);
    let parent = broker(&url);
    let member = Member::start("consumer", &url, &ledger);
    let event =
        |number: u64| Event::builder(Source::System, "work.it").payload(&number).build().expect("a valid event");
    assert!(parent.publish_batch((0..EVENTS).map(event).collect::<Vec<_>>()).iter().all(Result::is_ok));
    wait_until("the member works", || !lines(&ledger).is_empty());
    member.freeze(true);
    let before = lines(&ledger).len();
    let here = Ledger::open(&ledger);
    let subscription = parent
        .subscribe_with(work(), move |delivery| here.write(&format!("{} - here", delivery.event().id())))
        .expect("a subscription");
    wait_until("this member takes over", || {
        count(&url, "SELECT count(*) FROM events WHERE status = 'completed'") == EVENTS as i64
    });
    thread::sleep(3 * LEASE);
    let settled = "SELECT sum(hashtextextended(position || ' ' || holder || ' ' || token || ' ' || state || ' ' || settled_at, 0))::text::numeric::text \
         FROM events_deliveries WHERE position <= 200";
    let settled = || {
        Client::connect(&url, NoTls).expect("it connects").query_one(settled, &[]).expect("a row").get::<_, String>(0)
    };
    let (rows, taken_over) = (settled(), count(&url, "SELECT count(*) FROM events_deliveries WHERE claims > 1"));
    assert!(taken_over > 0, "it held nothing when it was frozen");
    member.freeze(false);
    parent.unsubscribe(subscription).expect("it is there");
    // It is awake when it handles what comes now; by then it has told what it thought that it had to tell.
    let last = parent.publish(event(EVENTS)).expect("it is accepted").id.to_string();
    wait_until("the member is awake", || lines(&ledger).iter().any(|line| line.starts_with(&last)));
    assert_eq!(settled(), rows, "nothing that it settled late was written");
    let by_member = lines(&ledger).iter().filter(|line| !line.ends_with(" here")).count();
    let late = by_member - before - 1;
    assert!(late <= 4, "{late} calls, more than ran when it was frozen, went on with what it had lost");
    parent.stop(PATIENCE);
    println!("  {EVENTS} events, {before} before it was frozen, taken over {taken_over}");
}

fn killed_publishers(server: &Server, random: &mut Random) {
    let (folder, url) = (Folder::new(), server.database());
    let ledger = folder.file("ledger");
    declare(&url);
    let rounds = kills(8);
    for _ in 0..rounds {
        let before = lines(&ledger).len();
        let mut member = Member::start("publisher", &url, &ledger);
        wait_until("something is accepted", || lines(&ledger).len() > before);
        thread::sleep(Duration::from_millis(random.below(60)));
        member.kill();
    }
    let accepted = lines(&ledger);
    let lost = lost(&url, &accepted);
    assert_eq!(lost, 0, "accepted and not there with its delivery");
    let stored = count(&url, "SELECT count(*) FROM events");
    println!(
        "  {rounds} kills, {} accepted, lost 0, stored and not answered {}",
        accepted.len(),
        stored as usize - accepted.len()
    );
}

/// How many of these are not there with their delivery.
fn lost(url: &str, accepted: &[String]) -> i64 {
    let query = "SELECT count(*) FROM unnest($1::text[]) AS i(id) WHERE (SELECT count(*) FROM events e \
         JOIN events_deliveries d USING (position) WHERE e.id = i.id) <> 1";
    let mut client = Client::connect(url, NoTls).expect("it connects");
    client.query_one(query, &[&accepted]).expect("a count").get(0)
}

fn crashing_server(server: &Server, random: &mut Random) {
    let (folder, url) = (Folder::new(), server.database());
    let (accepted, ledger) = (folder.file("accepted"), folder.file("ledger"));
    declare(&url);
    let mut publisher = Member::start("publisher", &url, &accepted);
    let members: Vec<Member> = (0..2).map(|_| Member::start("consumer", &url, &ledger)).collect();
    let mut slowest = Duration::ZERO;
    let rounds = kills(4);
    for round in 0..rounds {
        let before = lines(&ledger).len();
        wait_until("events are handled", || lines(&ledger).len() > before + 20);
        thread::sleep(Duration::from_millis(random.below(60)));
        if round % 2 == 0 {
            server.crash();
            thread::sleep(Duration::from_millis(300));
            server.up();
        } else {
            let query =
                "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'eventbroker'";
            assert!(count(&url, query) >= 10, "three processes had their connections");
        }
        let back = Instant::now();
        // What is written down now may have been answered before the crash: one more of each is waited for.
        for file in [&accepted, &ledger] {
            let before = lines(file).len();
            wait_until("it goes on", || lines(file).len() > before + 8);
        }
        slowest = slowest.max(back.elapsed());
        assert!(back.elapsed() < RECOVERY, "it went on {:?} after the server was back", back.elapsed());
    }
    publisher.kill();
    let accepted = lines(&accepted);
    wait_until("all are handled", || {
        let handled = handled(&ledger);
        accepted.iter().all(|id| handled.contains(id))
    });
    assert_eq!(lost(&url, &accepted), 0);
    drop(members);
    let calls = lines(&ledger).len();
    let twice = calls - handled(&ledger).len();
    println!(
        "  {rounds} faults, {} accepted, lost 0, handled twice {twice} of {calls}, went on within {slowest:?}",
        accepted.len()
    );
}
