//! Cases about faults between a bridge and its server: lost answers, a server that is unreachable, stopped, killed or
//! frozen, and a link that is down. The same for every provider. `DOWN=60` sets the seconds of an outage, `CUTS=1000`
//! the number of lost answers.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::provider::Provider;
use eventbroker::query::Filter;
use eventbroker::{Broker, Event, HandlerError, PublishError, RetryPolicy, Source, Status, SubscribeOptions};

use crate::load;
use crate::processes::ledger::Accepted;
use crate::processes::setting;
use crate::proxy::Proxy;
use crate::watch::{PATIENCE, RECOVERY, count_local, event, wait_until};

/// The documented capacity of the buffer of published events.
const BUFFER: u64 = 10_000;

/// The lease of a broker whose answers are cut. A claim whose answer is lost holds its deliveries for one lease; a member
/// on a busy machine must be able to extend its own leases within it.
pub const LEASE: Duration = Duration::from_secs(2);
/// The most events of [`lost_answers`] that wait: publishers do not outrun the handlers.
const AHEAD: u64 = 200;

/// Answers are lost to any request: store, claim, settle, extend. A publisher sees neither a false rejection nor a
/// false success.
///
/// # Panics
/// If an event was lost, repeated or out of order, or the load resumed too late.
pub fn lost_answers(broker: &Broker, proxy: &Proxy) {
    let cuts = setting("CUTS", 60);
    let (sender, handled) = channel();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    broker
        .subscribe_with(SubscribeOptions::new("cut.*").name("all").concurrency(4), move |delivery| {
            counted.fetch_add(1, Ordering::SeqCst);
            // The receiver is dropped when the test has ended.
            let _ = sender.send(delivery.event().id().to_string());
        })
        .expect("a subscription");
    let (accepted, stop) = (Mutex::new(Accepted::default()), AtomicBool::new(false));
    let so_many = || accepted.lock().expect("no panic under the lock").count();
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        let _stop = load::Stop(&stop);
        for publisher in 0..4 {
            let (accepted, stop, so_many, count) = (&accepted, &stop, &so_many, &count);
            scope.spawn(move || {
                for number in 0.. {
                    while so_many() as u64 >= count.load(Ordering::SeqCst) + AHEAD && !stop.load(Ordering::SeqCst) {
                        thread::sleep(Duration::from_millis(1));
                    }
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let event = Event::builder(Source::System, "cut.it").key(publisher.to_string()).payload(&number);
                    let event = event.build().expect("a valid event");
                    let held = broker.publish(event.clone()).expect("it is accepted in spite of lost answers");
                    assert!(!held.duplicate, "it was published once");
                    accepted.lock().expect("no panic under the lock").enter(&event, number);
                }
            });
        }
        for _ in 0..cuts {
            let (published, ran) = (so_many(), count.load(Ordering::SeqCst));
            proxy.cut_answers(1);
            wait_until("an answer is cut", || proxy.answers_to_cut() == 0);
            let goes_on = || so_many() > published + 4 && count.load(Ordering::SeqCst) > ran + 4;
            slowest = slowest.max(wait_until("publishing and handling resume", goes_on));
        }
    });
    let accepted = accepted.into_inner().expect("no panic under the lock");
    let mut calls = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while !accepted.is_handled(&calls) {
        assert!(Instant::now() < deadline, "{}", accepted.account(&calls));
        calls.extend(handled.recv_timeout(Duration::from_millis(100)));
        calls.extend(handled.try_iter());
    }
    let unfinished = Filter { status: Some(Status::Processing), ..Filter::default() };
    wait_until("all are settled", || broker.list(&unfinished).is_ok_and(|page| page.events.is_empty()));
    assert!(broker.stop(PATIENCE).is_clean());
    calls.extend(handled.try_iter());
    let account = accepted.account(&calls);
    println!("{cuts} answers cut, resumed within {slowest:?}: {account}");
    account.check();
    assert_eq!(account.repeated, 0, "{account}");
    assert!(slowest < RECOVERY, "resumed after {slowest:?}");
}

/// Idle connections are cut, as a firewall does: the next call does not fail.
///
/// # Panics
/// If a call fails.
pub fn cut_while_idle(broker: &Broker, proxy: &Proxy) {
    // Longer than a bridge uses an idle connection without a check.
    const IDLE: Duration = Duration::from_secs(6);
    let use_all = || {
        broker.publish(event("idle.it")).expect("it is accepted");
        broker.list(&Filter::default()).expect("a page");
        broker.dead_letter_count().expect("a count");
    };
    use_all();
    proxy.set_down(true);
    proxy.set_down(false);
    thread::sleep(IDLE);
    use_all();
    assert!(broker.stop(PATIENCE).is_clean());
}

/// The processor time used by this process.
fn used() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("this process");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("ticks");
    // A tick is 10 ms.
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

/// While the server is unreachable the bridge reconnects at a bounded rate, and retries wait in memory or at the back
/// end. Leases of retries in memory must last longer than the outage.
///
/// # Panics
/// If the bridge makes more than 5 attempts a second or uses more than 5 % of a core, or the load resumes too late.
pub fn away(broker: &Broker, proxy: &Proxy) {
    const EVENTS: usize = 10_000;
    let down = Duration::from_secs(setting("DOWN", 3));
    let (works, attempts) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let done = Arc::new(Mutex::new(BTreeSet::new()));
    let (working, tried, handled) = (Arc::clone(&works), Arc::clone(&attempts), Arc::clone(&done));
    let options = SubscribeOptions::new("down.*").name("all").queue_capacity(EVENTS).max_waiting(2 * EVENTS);
    let retry = RetryPolicy::fixed(1_000, down + Duration::from_secs(8));
    broker
        .subscribe_with(options.retry(retry), move |delivery| {
            tried.fetch_add(1, Ordering::SeqCst);
            if !working.load(Ordering::SeqCst) {
                return Err(HandlerError::retry("not yet"));
            }
            handled.lock().expect("no panic under the lock").insert(delivery.event().id().clone());
            Ok(())
        })
        .expect("a subscription");
    let event = || Event::builder(Source::System, "down.it").build().expect("a valid event");
    let published = broker.publish_batch((0..EVENTS).map(|_| event()));
    let ids: BTreeSet<_> = published.into_iter().map(|it| it.expect("it is accepted").id).collect();
    let here = || broker.stats().subscriptions[0].waiting;
    let there = || broker.back_end_stats().map_or(0, |stats| stats.subscriptions.iter().map(|lag| lag.deferred).sum());
    wait_until("all wait for a retry", || (here() + there()) as usize == EVENTS);
    let tried_before = attempts.load(Ordering::SeqCst);
    proxy.set_down(true);
    works.store(true, Ordering::SeqCst);
    // The first attempts follow each other fast.
    thread::sleep(Duration::from_secs(1));
    let (connects, processor, began) = (proxy.connects(), used(), Instant::now());
    thread::sleep(down.saturating_sub(Duration::from_secs(1)));
    let took = began.elapsed().as_secs_f64();
    let connects = (proxy.connects() - connects) as f64 / took;
    let load = (used() - processor).as_secs_f64() / took;
    let attempts_meanwhile = attempts.load(Ordering::SeqCst) - tried_before;
    proxy.set_down(false);
    let back = wait_until("events are accepted again", || broker.publish(event()).is_ok());
    wait_until("all are handled", || done.lock().expect("no panic under the lock").is_superset(&ids));
    let extra = attempts.load(Ordering::SeqCst) - 2 * EVENTS as u64;
    println!(
        "away for {down:?}: {connects:.1} connects/s, {:.1} % of a core, {attempts_meanwhile} handler attempts meanwhile; \
         accepted events {back:?} after; {extra} attempts beyond two per event",
        load * 100.0
    );
    assert!(connects <= 5.0, "{connects} connects per second");
    assert!(load <= 0.05, "{load} of a core");
    assert!(back < RECOVERY);
    assert!(extra <= EVENTS as u64 / 10, "{extra} attempts too many");
    let letters = broker.dead_letter_count();
    assert_eq!(letters, Ok(0));
    assert!(broker.stop(PATIENCE).is_clean());
}

/// The link is down, without an error at either end. `set_up` sets it down and up.
///
/// # Panics
/// If an event was lost or out of order, or the load resumed too late.
pub fn link_down(name: &str, provider: Provider, set_up: impl Fn(bool)) {
    let broker = load::start(provider);
    load::run(name, &broker, 100, |load| {
        set_up(false);
        // TCP retransmits about 0.2, 0.6, 1.4, 3.0 and 6.2 s after the first loss. The link is up again between two of
        // these times, not at one of them.
        thread::sleep(load::down(Duration::from_secs(2)));
        set_up(true);
        load.goes_on();
        assert!(load.unknown() > 0, "nobody waits longer than the deadline");
    });
}

/// The server is frozen with its connections open, and continues. Late answers are not taken for answers to other
/// requests.
///
/// # Panics
/// If an event was lost or out of order, or the load resumed too late.
pub fn stands_still(provider: Provider, freeze: impl Fn(bool)) {
    let broker = load::start(provider);
    load::run("a frozen server", &broker, 100, |load| {
        freeze(true);
        thread::sleep(load::down(Duration::from_secs(3)));
        freeze(false);
        load.goes_on();
        assert!(load.unknown() > 0, "nobody waits longer than the deadline");
    });
}

/// The server is killed and started again, three times.
///
/// # Panics
/// If an event was lost or out of order, or the load resumed too late.
pub fn crashes(name: &str, provider: Provider, crash: impl Fn(), up: impl Fn()) {
    let broker = load::start(provider);
    load::run(name, &broker, 100, |load| {
        // At once, after 300 ms, and after publishers have timed out.
        for pause in [Duration::ZERO, Duration::from_millis(300), load::down(Duration::from_millis(1_500))] {
            crash();
            thread::sleep(pause);
            up();
            load.goes_on();
        }
        assert!(load.unknown() > 0, "nobody waits longer than the deadline");
    });
}

/// The resident memory of this process in bytes.
fn memory() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("this process");
    pages.split(' ').nth(1).and_then(|it| it.parse::<u64>().ok()).expect("pages") * 4096
}

/// The processor time used by the threads of the bridge.
fn used_by_bridge() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("this process").flatten();
    let ticks: Vec<u64> = tasks
        .filter_map(|task| {
            // The thread may have ended since the listing.
            let stat = fs::read_to_string(task.path().join("stat")).ok()?;
            let (name, rest) = stat.rsplit_once(')')?;
            // The kernel keeps 15 characters of a name; a client's own thread is named after the client.
            let name = name.split_once('(')?.1;
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let time = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
            let is_ours = ["mir", "ing", "set"].iter().any(|it| name == format!("eventbroker:{it}"));
            (is_ours || name.starts_with("eventbroker-")).then_some(time)
        })
        .collect();
    assert!((3..=4).contains(&ticks.len()), "the threads of one bridge: {}", ticks.len());
    // A tick is 10 ms.
    Duration::from_millis(10 * ticks.iter().sum::<u64>())
}

/// While the server is stopped, local subscriptions keep their rate and publishes are buffered. Run alone in its
/// process.
///
/// # Panics
/// If the rate falls by more than 5 %, the memory grows by 64 MiB, the bridge uses 5 % of a core, or the buffer is not
/// sent soon after the server is back.
pub fn stopped(broker: &Broker, stop: impl FnOnce(), start: impl FnOnce()) {
    let handled = count_local(broker);
    // Evenly paced, and fewer events than the buffer holds.
    let time = load::down(Duration::from_secs(2));
    let published = (BUFFER - 1_000).min(2_000 * time.as_secs());
    let paced = |time: Duration| {
        let (before, began) = (handled.load(Ordering::SeqCst), Instant::now());
        for number in 0..published {
            broker.publish(event("local.it")).expect("it is accepted");
            let due = time.mul_f64(number as f64 / published as f64);
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
        wait_until("all are handled", || handled.load(Ordering::SeqCst) == before + published);
        published as f64 / began.elapsed().as_secs_f64()
    };
    let buffered = || broker.stats().bridge.map_or(0, |bridge| bridge.mirror_backlog);
    let with = paced(time);
    wait_until("the buffer is empty", || buffered() == 0);
    stop();
    let (used, began) = (used_by_bridge(), Instant::now());
    let without = paced(time);
    let load = (used_by_bridge() - used).as_secs_f64() / began.elapsed().as_secs_f64();
    // Publishes beyond the capacity of the buffer are rejected.
    let (before, mut refused) = (memory(), 0_u64);
    for _ in 0..20 * BUFFER {
        match broker.publish(event("local.it")) {
            Ok(_) => {}
            Err(PublishError::Full { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    let grown = memory().saturating_sub(before);
    let backlog = buffered();
    start();
    let back = Instant::now();
    let first = wait_until("the first are sent", || buffered() < BUFFER);
    wait_until("the buffer is empty", || buffered() == 0);
    broker.publish(event("local.it")).expect("it is accepted");
    let back = back.elapsed();
    println!(
        "the server stopped: {without:.0} events/s handled locally, {with:.0} before; {:.2} % of a core for the bridge, \
         {backlog} buffered, {refused} rejected, {} KiB more memory; the first sent {first:?} after its return, all {back:?}",
        load * 100.0,
        grown / 1024
    );
    assert!(without >= 0.95 * with, "{without} of {with}");
    assert!(load < 0.05, "{load} of a core");
    assert!(backlog == BUFFER && refused > 0, "{backlog} are buffered, {refused} refused");
    assert!(grown < 64 << 20, "{grown} bytes");
    // Only a release build is fast enough to send all within the deadline.
    assert!(first < RECOVERY && (cfg!(debug_assertions) || back < RECOVERY), "{first:?}, {back:?}");
    assert!(broker.stop(PATIENCE).is_clean());
}
