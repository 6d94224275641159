//! Faults between a bridge and its server, through a [proxy](crate::proxy): answers that are lost, and a server that is away. The same for
//! every provider. `DOWN=60` has it away for so many seconds, `CUTS=1000` cuts so many answers.

use std::collections::BTreeSet;
use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::query::Filter;
use eventbroker::{Broker, Event, HandlerError, RetryPolicy, Source, Status, SubscribeOptions};

use crate::processes::ledger::Accepted;
use crate::processes::setting;
use crate::proxy::Proxy;

const PATIENCE: Duration = Duration::from_secs(30);
/// So soon after a fault everything goes on.
const RECOVERY: Duration = Duration::from_secs(3);

fn wait_until(what: &str, holds: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "it did not come to pass: {what}");
        thread::sleep(Duration::from_millis(2));
    }
    began.elapsed()
}

/// Whatever was asked: to store, to claim, to settle, to extend. The publisher hears neither of a refusal nor of a success that is none.
///
/// # Panics
/// If something was lost, repeated or out of order, or went on too late.
pub fn lost_answers(broker: &Broker, proxy: &Proxy) {
    let cuts = setting("CUTS", 60);
    let (sender, handled) = channel();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    broker
        .subscribe_with(SubscribeOptions::new("cut.*").name("all").concurrency(4), move |delivery| {
            counted.fetch_add(1, Ordering::SeqCst);
            // Nobody listens any more when the test has seen enough.
            let _ = sender.send(delivery.event().id().to_string());
        })
        .expect("a subscription");
    let (accepted, stop) = (Mutex::new(Accepted::default()), AtomicBool::new(false));
    let so_many = || accepted.lock().expect("no panic under the lock").count();
    let mut slowest = Duration::ZERO;
    thread::scope(|scope| {
        for publisher in 0..4 {
            let (accepted, stop) = (&accepted, &stop);
            scope.spawn(move || {
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        return;
                    }
                    let event = Event::builder(Source::System, "cut.it").key(publisher.to_string()).payload(&number);
                    let event = event.build().expect("a valid event");
                    let held = broker.publish(event.clone()).expect("it is accepted, whatever is cut");
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
            slowest = slowest.max(wait_until("it goes on", goes_on));
        }
        stop.store(true, Ordering::SeqCst);
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
    println!("{cuts} answers cut, went on within {slowest:?}: {account}");
    account.check();
    assert_eq!(account.repeated, 0, "{account}");
    assert!(slowest < RECOVERY, "it went on after {slowest:?}");
}

/// Processor time that this process has used.
fn used() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("this process");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks = |at: usize| fields[at].parse::<u64>().expect("ticks");
    // Of a hundredth of a second.
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

/// While the server is away it is asked seldom, and retries wait. The leases should last longer than that.
///
/// # Panics
/// If it is asked too often, costs too much, or does not go on soon.
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
    wait_until("all wait for a retry", || broker.stats().subscriptions[0].waiting as usize == EVENTS);
    let tried_before = attempts.load(Ordering::SeqCst);
    proxy.set_down(true);
    works.store(true, Ordering::SeqCst);
    // The first tries come quickly.
    thread::sleep(Duration::from_secs(1));
    let (connects, processor, began) = (proxy.connects(), used(), Instant::now());
    thread::sleep(down.saturating_sub(Duration::from_secs(1)));
    let took = began.elapsed().as_secs_f64();
    let connects = (proxy.connects() - connects) as f64 / took;
    let load = (used() - processor).as_secs_f64() / took;
    let attempts_meanwhile = attempts.load(Ordering::SeqCst) - tried_before;
    proxy.set_down(false);
    let back = wait_until("it takes events again", || broker.publish(event()).is_ok());
    wait_until("all are handled", || done.lock().expect("no panic under the lock").is_superset(&ids));
    let extra = attempts.load(Ordering::SeqCst) - 2 * EVENTS as u64;
    println!(
        "away for {down:?}: {connects:.1} tries to connect and {:.1} % of a core per second, {attempts_meanwhile} attempts meanwhile; \
         took events {back:?} after; {extra} attempts beyond the two of each event",
        load * 100.0
    );
    assert!(connects <= 5.0, "{connects} tries to connect per second");
    assert!(load <= 0.05, "{load} of a core");
    assert!(back < RECOVERY);
    assert!(extra <= EVENTS as u64 / 10, "{extra} attempts too many");
    let letters = broker.dead_letter_count();
    assert_eq!(letters, Ok(0));
    assert!(broker.stop(PATIENCE).is_clean());
}
