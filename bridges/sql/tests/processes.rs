//! Processes that share a file and die: this program starts itself again as a member, kills it by its handle, and looks at what the
//! members wrote down and at what is in the file. Each case prints its figures.
//!
//! `KILLS=100` makes more of the kills, `SEED=n` repeats a run.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use std::{env, fs, process};

use eventbroker::error::StartError;
use eventbroker::query::Filter;
use eventbroker::{Broker, Event, Scope, Source, Status, SubscribeOptions};
use eventbroker_sql::Sqlite;
use rusqlite::Connection;
use support::Folder;

mod support;

/// Short, so that what a dead member held is taken over soon.
const LEASE: Duration = Duration::from_millis(600);
/// Nothing takes longer, even on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What it shows, and how.
type Case = (&'static str, fn(&mut Random));

const CASES: &[Case] = &[
    ("two processes share the events, and one takes over what the other had when it was killed", killed_consumers),
    ("one killer among 1,000 events", one_killer),
    ("a member that was frozen for three leases changes nothing afterwards", frozen),
    ("what was accepted is there after the publisher was killed", killed_publishers),
    ("the name of a process that was killed is free at once", named),
    ("a member that has nothing to do wakes the machine fewer than 20 times a second", idle),
    ("what is committed by another process arrives, what is rolled back does not", outbox),
];

fn main() {
    if let Ok(role) = env::var("MEMBER") {
        let file = PathBuf::from(env::var("FILE").expect("the file of the events"));
        let ledger = Ledger::open(&PathBuf::from(env::var("LEDGER").expect("the file to write down in")));
        return match role.as_str() {
            "consumer" => consume(&file, ledger),
            "victim" => consume_until_killed(&file, ledger),
            "idle" => stay_idle(&file, ledger),
            "named" => hold_a_name(&file, &ledger),
            _ => publish(&file, &ledger),
        };
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_nanos() as u64;
    let seed = env::var("SEED").map_or(now, |seed| seed.parse().expect("SEED is a number"));
    println!("SEED={seed}");
    let wanted: Vec<String> = env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    for (name, case) in CASES {
        if wanted.is_empty() || wanted.iter().any(|it| name.contains(it.as_str())) {
            println!("{name}");
            case(&mut Random(seed | 1));
        }
    }
}

/// Lines that survive whoever writes them, as long as the machine does.
struct Ledger(Mutex<File>);

impl Ledger {
    fn open(path: &Path) -> Self {
        Self(Mutex::new(OpenOptions::new().append(true).create(true).open(path).expect("a file to write down in")))
    }

    fn write(&self, line: &str) {
        let line = format!("{line}\n");
        self.0.lock().expect("no panic under the lock").write_all(line.as_bytes()).expect("a line is written");
    }
}

fn lines(path: &Path) -> Vec<String> {
    let mut text = String::new();
    if let Ok(mut file) = File::open(path) {
        file.read_to_string(&mut text).expect("a text");
    }
    text.lines().map(str::to_owned).collect()
}

/// Reproducible numbers.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// A process of this program in another role, which is killed when it is dropped.
struct Member(Child);

impl Member {
    fn start(role: &str, file: &Path, ledger: &Path) -> Self {
        let me = env::current_exe().expect("this program");
        let mut command = Command::new(me);
        command.env("MEMBER", role).env("FILE", file).env("LEDGER", ledger).stdin(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().expect("a process"))
    }

    fn kill(&mut self) {
        // Killed before, or ended: both will do.
        let _ = self.0.kill();
        self.0.wait().expect("it ends");
    }

    /// Stops its threads where they are, or has them go on.
    fn freeze(&self, frozen: bool) {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let sent = Command::new("kill").args([signal, &self.0.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("its state").is_some()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

fn broker(file: &Path) -> Broker {
    let sqlite = Sqlite::new(file).lease_time(LEASE).open().expect("it opens");
    Broker::builder().worker_count(4).provider(sqlite).start().expect("it starts")
}

fn work() -> SubscribeOptions {
    SubscribeOptions::new("work.**").name("work").concurrency(4)
}

/// Makes the subscription known, so that events of the parent have somewhere to go.
fn declare(file: &Path) {
    let broker = broker(file);
    let id = broker.subscribe_with(work(), |_| ()).expect("a subscription");
    broker.unsubscribe(id).expect("it is there");
    broker.stop(PATIENCE);
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "it did not come to pass: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn sleep_for_ever() -> ! {
    loop {
        thread::park();
    }
}

/// A member: handles each event and writes its id, its key and its number down.
fn consume(file: &Path, ledger: Ledger) {
    let broker = broker(file);
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

/// The same with the settings of every day.
fn stay_idle(file: &Path, ledger: Ledger) {
    let broker = Broker::builder().provider(Sqlite::new(file).open().expect("it opens")).start().expect("it starts");
    broker
        .subscribe_with(work(), move |delivery| ledger.write(&delivery.event().id().to_string()))
        .expect("a subscription");
    sleep_for_ever()
}

/// The same, but one event kills the process.
fn consume_until_killed(file: &Path, ledger: Ledger) {
    let broker = broker(file);
    broker
        .subscribe_with(work(), move |delivery| {
            let event = delivery.event();
            if event.event_type().as_str() == "work.kill" {
                process::abort();
            }
            ledger.write(&event.id().to_string());
        })
        .expect("a subscription");
    sleep_for_ever()
}

/// Publishes from four threads, and writes down what was accepted.
fn publish(file: &Path, ledger: &Ledger) {
    let broker = broker(file);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let event = Event::builder(Source::System, "work.it").payload(&0).build().expect("a valid event");
                    let accepted = broker.publish(event).expect("it is accepted");
                    ledger.write(&accepted.id.to_string());
                }
            });
        }
    });
}

fn kills(few: u64) -> u64 {
    env::var("KILLS").map_or(few, |kills| kills.parse().expect("KILLS is a number"))
}

fn is_whole(file: &Path) {
    let connection = Connection::open(file).expect("it opens");
    let check: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("a check");
    assert_eq!(check, "ok");
}

/// Deliveries that were claimed more than once.
fn claimed_again(file: &Path) -> i64 {
    let connection = Connection::open(file).expect("it opens");
    let query = "SELECT count(*) FROM events_deliveries WHERE claims > 1";
    connection.query_row(query, [], |row| row.get(0)).expect("a count")
}

fn killed_consumers(random: &mut Random) {
    const KEYS: u64 = 10;
    let folder = Folder::new();
    let (file, ledger) = (folder.file("events.db"), folder.file("ledger"));
    declare(&file);
    let parent = broker(&file);
    let (mut members, mut sent, mut killed) = (Vec::new(), BTreeMap::new(), 0);
    for _ in 0..2 {
        members.push(Member::start("consumer", &file, &ledger));
    }
    let (rounds, mut number) = (kills(6), 0);
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
            // At the earliest when somebody works.
            let before = lines(&ledger).len();
            wait_until("somebody works", || lines(&ledger).len() > before || lines(&ledger).len() >= sent.len());
            // Not always at the same moment, or the same event would look like the killer.
            thread::sleep(Duration::from_millis(random.below(60)));
            let victim = random.below(2) as usize;
            members[victim].kill();
            killed += 1;
            members[victim] = Member::start("consumer", &file, &ledger);
        }
    }
    let last_kill = Instant::now();
    let handled = || lines(&ledger).iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect();
    wait_until("all are handled", || {
        let handled: BTreeSet<String> = handled();
        sent.keys().all(|id| handled.contains(id))
    });
    let took = last_kill.elapsed();
    let connection = Connection::open(&file).expect("it opens");
    let count = |query: &str| -> i64 { connection.query_row(query, [], |row| row.get(0)).expect("a count") };
    // Whose process was killed three times while it ran alone: that is taken for the killer, and kept as a dead letter.
    let blamed = "SELECT count(*) FROM events_deliveries WHERE state = 3 AND reason = 'crash_loop' AND crashes = 3";
    wait_until("all are completed", || {
        let completed = count("SELECT count(*) FROM events WHERE status = 'completed'");
        (completed + count(blamed)) as usize == sent.len()
    });
    let blamed = count(blamed);
    assert!(blamed as u64 <= killed / 3, "{blamed} were blamed for {killed} kills");
    drop(members);
    parent.stop(PATIENCE);
    // The first call of each event, in the order of the ledger, is in the order of its key.
    let (mut seen, mut last, mut repeated) = (BTreeSet::new(), BTreeMap::new(), 0);
    for line in lines(&ledger) {
        let fields: Vec<&str> = line.split(' ').collect();
        let (key, number) = sent.get(fields[0]).expect("nothing came that was not sent");
        if !seen.insert(fields[0].to_owned()) {
            repeated += 1;
            continue;
        }
        let before = last.insert(key.clone(), *number).unwrap_or(0);
        assert!(before < *number, "of {key}, {number} came after {before}");
    }
    is_whole(&file);
    let taken_over = claimed_again(&file);
    assert!(taken_over > 0, "no kill has met a member that held something");
    println!(
        "  {} events, {killed} kills, lost 0, taken over {taken_over}, handled twice {repeated}, blamed {blamed}, all within {took:?} of the end",
        sent.len()
    );
}

/// With a lease that is longer than anybody waits.
fn try_name(file: &Path) -> Result<Broker, StartError> {
    let sqlite = Sqlite::new(file).lease_time(Duration::from_secs(3_600)).open().expect("it opens");
    Broker::builder().instance_id("shop-1").worker_count(1).provider(sqlite).start()
}

fn hold_a_name(file: &Path, ledger: &Ledger) {
    let _broker = try_name(file).expect("the name is free");
    ledger.write("named");
    sleep_for_ever()
}

fn named(_random: &mut Random) {
    let folder = Folder::new();
    let (file, ledger) = (folder.file("events.db"), folder.file("ledger"));
    let mut member = Member::start("named", &file, &ledger);
    wait_until("the member has the name", || lines(&ledger).len() == 1);
    assert!(matches!(try_name(&file), Err(StartError::InstanceTaken { .. })), "it lives");
    member.freeze(true);
    assert!(matches!(try_name(&file), Err(StartError::InstanceTaken { .. })), "it may go on");
    let killed = Instant::now();
    member.kill();
    let next = try_name(&file).expect("its holder has died");
    println!("  free after {:?}", killed.elapsed());
    assert!(next.stop(PATIENCE).is_clean());
}

/// Voluntary context switches of all threads of a process so far.
fn wake_ups(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the threads of the member");
    let switches = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).expect("it is alive");
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches:")).expect("a count");
        line.split_whitespace().nth(1).expect("a count").parse::<u64>().expect("a number")
    };
    tasks.flatten().map(switches).sum()
}

fn idle(_random: &mut Random) {
    let folder = Folder::new();
    let (file, ledger) = (folder.file("events.db"), folder.file("ledger"));
    declare(&file);
    let member = Member::start("idle", &file, &ledger);
    let parent = broker(&file);
    parent
        .publish(Event::builder(Source::System, "work.it").payload(&0).build().expect("a valid event"))
        .expect("room");
    wait_until("the member has worked", || lines(&ledger).len() == 1);
    parent.stop(PATIENCE);
    thread::sleep(Duration::from_secs(2));
    let (before, began) = (wake_ups(member.0.id()), Instant::now());
    thread::sleep(Duration::from_secs(5));
    let per_second = (wake_ups(member.0.id()) - before) as f64 / began.elapsed().as_secs_f64();
    println!("  {per_second:.1} wake-ups a second");
    assert!(per_second < 20.0);
}

/// One that is frozen while it writes holds the lock of the file, and nobody can do anything about that.
fn freeze_between_writes(member: &Member, file: &Path) {
    let connection = Connection::open(file).expect("it opens");
    connection.busy_timeout(Duration::from_millis(200)).expect("a setting");
    member.freeze(true);
    while connection.execute_batch("BEGIN IMMEDIATE; ROLLBACK").is_err() {
        member.freeze(false);
        thread::sleep(Duration::from_millis(1));
        member.freeze(true);
    }
}

fn frozen(_random: &mut Random) {
    const EVENTS: u64 = 200;
    let folder = Folder::new();
    let (file, ledger) = (folder.file("events.db"), folder.file("ledger"));
    declare(&file);
    let parent = broker(&file);
    let member = Member::start("consumer", &file, &ledger);
    let event =
        |number: &u64| Event::builder(Source::System, "work.it").payload(number).build().expect("a valid event");
    let events: Vec<Event> = (0..EVENTS).map(|number| event(&number)).collect();
    assert!(parent.publish_batch(events).iter().all(Result::is_ok));
    wait_until("the member works", || !lines(&ledger).is_empty());
    freeze_between_writes(&member, &file);
    let settled = || lines(&ledger).len();
    let before = settled();
    let ledger_here = Ledger::open(&ledger);
    parent
        .subscribe_with(work(), move |delivery| {
            ledger_here.write(&format!("{} - here", delivery.event().id()));
        })
        .expect("a subscription");
    let is_done = || {
        let filter = Filter { status: Some(Status::Completed), limit: Some(10_000), ..Filter::default() };
        parent.list(&filter).expect("it answers").events.len() == EVENTS as usize
    };
    wait_until("this member takes over", is_done);
    thread::sleep(3 * LEASE);
    let settled_by = || -> Vec<(i64, Option<String>, Option<i64>, i64)> {
        let connection = Connection::open(&file).expect("it opens");
        let query = "SELECT position, holder, token, state FROM events_deliveries ORDER BY position";
        let mut statement = connection.prepare(query).expect("a statement");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)));
        rows.expect("rows").collect::<Result<_, _>>().expect("rows")
    };
    let (rows, taken_over) = (settled_by(), claimed_again(&file));
    assert!(taken_over > 0, "it held nothing when it was frozen");
    member.freeze(false);
    // It is awake when it handles what comes now; by then it has told what it thought that it had to tell.
    let broker = parent;
    let subscription = broker.stats().subscriptions[0].id;
    broker.unsubscribe(subscription).expect("it is there");
    let event = Event::builder(Source::System, "work.last").payload(&0).build().expect("a valid event");
    let last = broker.publish(event).expect("it is accepted").id.to_string();
    wait_until("the member is awake", || lines(&ledger).iter().any(|line| line.starts_with(&last)));
    wait_until("all are settled", || {
        broker
            .get(&last.parse().expect("an id"))
            .expect("it answers")
            .is_some_and(|it| it.status() == Status::Completed)
    });
    assert_eq!(settled_by()[..rows.len()], rows, "nothing that it settled late was written");
    let calls = lines(&ledger);
    let all: BTreeSet<&str> = calls.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(all.len(), EVENTS as usize + 1);
    let by_member = calls.iter().filter(|line| !line.ends_with(" here")).count();
    let late = by_member - before - 1;
    assert!(late <= 4, "{late} calls, more than ran when it was frozen, went on with what it had lost");
    let repeated = calls.len() - all.len();
    broker.stop(PATIENCE);
    println!("  {EVENTS} events, {before} before it was frozen, taken over {taken_over}, handled twice {repeated}");
}

fn one_killer(random: &mut Random) {
    const EVENTS: u64 = 1_000;
    let folder = Folder::new();
    let (file, ledger) = (folder.file("events.db"), folder.file("ledger"));
    declare(&file);
    let parent = broker(&file);
    let killer = random.below(EVENTS);
    let events = (0..EVENTS).map(|number| {
        let event_type = if number == killer { "work.kill" } else { "work.it" };
        Event::builder(Source::System, event_type).payload(&number).build().expect("a valid event")
    });
    let accepted = parent.publish_batch(events);
    assert!(accepted.iter().all(Result::is_ok));
    let count = |status| {
        let filter = Filter { status: Some(status), limit: Some(10_000), ..Filter::default() };
        parent.list(&filter).expect("it answers").events.len()
    };
    let mut deaths = 0;
    let mut member = Member::start("victim", &file, &ledger);
    wait_until("all are settled", || {
        if member.has_ended() {
            deaths += 1;
            member = Member::start("victim", &file, &ledger);
        }
        count(Status::Completed) + count(Status::Failed) == EVENTS as usize
    });
    drop(member);
    assert_eq!((count(Status::Completed), count(Status::Failed)), (999, 1));
    let filter = Filter { status: Some(Status::Failed), ..Filter::default() };
    let failed = parent.list(&filter).expect("it answers").events;
    assert_eq!(failed[0].event_type().as_str(), "work.kill");
    parent.stop(PATIENCE);
    let dead: Vec<(String, i64)> = {
        let connection = Connection::open(&file).expect("it opens");
        let mut statement =
            connection.prepare("SELECT reason, crashes FROM events_deliveries WHERE state = 3").expect("a statement");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("rows");
        rows.collect::<Result<_, _>>().expect("rows")
    };
    assert_eq!(dead, [("crash_loop".to_owned(), 3)]);
    // The first call is not marked: nobody suspected it.
    assert_eq!(deaths, 4);
    let calls = lines(&ledger);
    let handled: BTreeSet<&String> = calls.iter().collect();
    assert_eq!(handled.len(), 999);
    println!("  1 dead letter, 999 completed, {deaths} deaths, {} handled twice", calls.len() - handled.len());
}

fn killed_publishers(random: &mut Random) {
    let folder = Folder::new();
    let (file, ledger) = (folder.file("events.db"), folder.file("ledger"));
    declare(&file);
    let rounds = kills(10);
    for _ in 0..rounds {
        let before = lines(&ledger).len();
        let mut member = Member::start("publisher", &file, &ledger);
        wait_until("something is accepted", || lines(&ledger).len() > before);
        thread::sleep(Duration::from_millis(random.below(60)));
        member.kill();
        is_whole(&file);
    }
    let accepted = lines(&ledger);
    let connection = Connection::open(&file).expect("it opens");
    let mut lost = 0;
    for id in &accepted {
        let stored: i64 = connection
            .query_row(
                "SELECT count(*) FROM events e JOIN events_deliveries d USING (position) WHERE e.id = ?1",
                [id],
                |row| row.get(0),
            )
            .expect("a count");
        lost += usize::from(stored != 1);
    }
    let stored: i64 = connection.query_row("SELECT count(*) FROM events", [], |row| row.get(0)).expect("a count");
    assert_eq!(lost, 0, "accepted and not there with its delivery");
    println!(
        "  {rounds} kills, {} accepted, lost {lost}, stored and not answered {}",
        accepted.len(),
        stored as usize - accepted.len()
    );
}

fn outbox(_random: &mut Random) {
    let folder = Folder::new();
    let (file, ledger) = (folder.file("events.db"), folder.file("ledger"));
    declare(&file);
    let local = broker(&file);
    local
        .subscribe_with(SubscribeOptions::new("work.**").name("near").scope(Scope::Local), |_| -> () {
            unreachable!("a transaction of another connection is no publish of this broker")
        })
        .expect("a subscription");
    let _member = Member::start("consumer", &file, &ledger);
    let mut connection = Connection::open(&file).expect("it opens");
    connection.busy_timeout(PATIENCE).expect("a setting");
    connection.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)", []).expect("a table");
    let mut committed = BTreeSet::new();
    for number in 0..100_u64 {
        let event = Event::builder(Source::Database, "work.order").payload(&number).build().expect("a valid event");
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate).expect("a transaction");
        transaction.execute("INSERT INTO orders DEFAULT VALUES", []).expect("a row");
        assert_eq!(eventbroker_sql::sqlite::publish_in(&transaction, &event), Ok(true));
        assert_eq!(eventbroker_sql::sqlite::publish_in(&transaction, &event), Ok(false), "its id is known");
        if number % 3 == 0 {
            transaction.rollback().expect("it is rolled back");
        } else {
            transaction.commit().expect("it is committed");
            committed.insert(event.id().to_string());
        }
    }
    let handled = || -> BTreeSet<String> {
        lines(&ledger).iter().map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect()
    };
    wait_until("all that was committed arrives", || handled().is_superset(&committed));
    assert_eq!(handled(), committed, "and nothing else");
    assert!(local.stop(PATIENCE).is_clean());
    println!("  {} committed and handled, {} rolled back", committed.len(), 100 - committed.len());
}
