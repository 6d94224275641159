//! The cases that every durable provider runs.

use std::collections::BTreeSet;
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::dead_letter::{DeadLetterFilter, DeadReason};
use eventbroker::error::StartError;
use eventbroker::query::Filter;
use eventbroker::{Broker, Event, Source, Status};

use crate::load::Stop;

use super::ledger::{Accepted, calls, lines};
use super::members::{RETRY_AFTER, take_name};
use super::{Case, Fault, LEASE, Ledger, Member, PATIENCE, Scene, setting, wait_until, work};

const KEYS: u64 = 10;
/// Deadline for publishing and handling to resume after the back end has recovered.
const RECOVERY: Duration = Duration::from_secs(3);
/// How long a server is frozen, or dead.
const FREEZE: Duration = Duration::from_millis(1_500);
const DEATH: Duration = Duration::from_millis(300);

pub(super) const CASES: &[Case] = &[
    ("without a fault every event is handled once, in the order of its key", undisturbed),
    ("members share the events, and take over the leases of one when it was killed", killed_consumers),
    ("one event among 1,000 that kills its process", one_killer),
    ("accepted events are delivered after the publisher was killed", killed_publishers),
    ("late verdicts of a member that was frozen for three leases change nothing", frozen),
    ("a wall clock that jumps by an hour moves no retry and no lease", jumping_clock),
    ("the instance name of a killed process is free again", named),
    ("an idle member wakes fewer than 20 times a second", idle),
    ("nothing is lost when the back end is disturbed", disturbed),
];

fn event(key: &str, number: u64) -> Event {
    Event::builder(Source::System, "work.it").key(key).payload(&number).build().expect("a valid event")
}

fn count(broker: &Broker, status: Status) -> u64 {
    let (mut filter, mut count) = (Filter { status: Some(status), limit: Some(10_000), ..Filter::default() }, 0);
    loop {
        let page = broker.list(&filter).expect("it answers");
        count += page.events.len() as u64;
        match page.next {
            Some(next) => filter.after = Some(next),
            None => return count,
        }
    }
}

/// F1: eight publishers, each with keys of its own.
fn undisturbed(scene: &mut Scene<'_>) {
    const PUBLISHERS: u64 = 8;
    let (events, instances) = (setting("EVENTS", 2_000), setting("INSTANCES", 2));
    scene.declare();
    let parent = scene.broker();
    // `steady` has the default lease of 30 s, so that a member delayed by a busy machine does not lose leases.
    let members: Vec<Member> = (0..instances).map(|_| scene.member("steady")).collect();
    let accepted = Mutex::new(Accepted::default());
    let began = Instant::now();
    thread::scope(|scope| {
        for publisher in 0..PUBLISHERS {
            let (parent, accepted) = (&parent, &accepted);
            scope.spawn(move || {
                for number in 0..events / PUBLISHERS {
                    let event = event(&format!("{publisher}-{}", number % KEYS), number);
                    parent.publish(event.clone()).expect("it is accepted");
                    accepted.lock().expect("no panic under the lock").enter(&event, number);
                }
            });
        }
    });
    let accepted = accepted.into_inner().expect("no panic under the lock");
    let deadline = Instant::now() + PATIENCE.max(Duration::from_millis(events * 2));
    while !accepted.is_handled(&calls(&scene.ledger)) {
        assert!(Instant::now() < deadline, "{}", accepted.account(&calls(&scene.ledger)));
        thread::sleep(Duration::from_millis(20 + events / 500));
    }
    let took = began.elapsed();
    parent.stop(PATIENCE);
    drop(members);
    let account = accepted.account(&calls(&scene.ledger));
    scene.site.check(&account);
    assert!(!scene.site.is_exact() || account.repeated == 0, "{account}");
    println!("  {instances} members, {took:?}: {account}");
}

/// F9: consumers are killed between rounds of events.
fn killed_consumers(scene: &mut Scene<'_>) {
    let (kills, instances) = (setting("KILLS", 6), setting("INSTANCES", 2));
    scene.declare();
    let parent = scene.broker();
    let mut members: Vec<Member> = (0..instances).map(|_| scene.member("consumer")).collect();
    let (mut accepted, mut number) = (Accepted::default(), 0);
    for round in 0..=kills {
        let events: Vec<Event> = (0..150)
            .map(|_| {
                number += 1;
                event(&format!("k{}", scene.random.below(KEYS)), number)
            })
            .collect();
        assert!(parent.publish_batch(events.iter().cloned()).iter().all(Result::is_ok));
        events.iter().for_each(|event| accepted.enter(event, event.payload_as().expect("a number")));
        if round < kills {
            // A kill before the first call of the round would test nothing.
            let before = lines(&scene.ledger).len();
            wait_until("a member works", || {
                let now = lines(&scene.ledger).len();
                now > before || now >= accepted.count()
            });
            // At a random moment, or the same event would be suspected of every crash.
            thread::sleep(Duration::from_millis(scene.random.below(60)));
            let victim = scene.random.below(instances) as usize;
            members[victim].kill();
            members[victim] = scene.member("consumer");
        }
    }
    let last_kill = Instant::now();
    wait_until("all are handled", || accepted.is_handled(&calls(&scene.ledger)));
    let took = last_kill.elapsed();
    // An event whose process was killed three times while it ran alone is a dead letter: the crash guard blames it.
    let blamed = || {
        let crashed = DeadLetterFilter { reason: Some(DeadReason::CrashLoop), ..DeadLetterFilter::default() };
        parent.dead_letters(&crashed).expect("it answers").len() as u64
    };
    wait_until("all are settled", || count(&parent, Status::Completed) + blamed() == accepted.count() as u64);
    let blamed = blamed();
    // The first crash is shared by all that ran at that time; the second and the third are one event's.
    assert!(blamed <= kills.saturating_sub(1) / 2, "{blamed} were blamed for {kills} kills");
    drop(members);
    parent.stop(PATIENCE);
    scene.place.check();
    let account = accepted.account(&calls(&scene.ledger));
    scene.site.check(&account);
    println!("  {instances} members, {kills} kills, blamed {blamed}, done {took:?} after the last: {account}");
}

/// C19: the killer runs alone when it comes back, and only it collects crashes.
fn one_killer(scene: &mut Scene<'_>) {
    const EVENTS: u64 = 1_000;
    scene.declare();
    let parent = scene.broker();
    let killer = scene.random.below(EVENTS);
    let events = (0..EVENTS).map(|number| {
        let event_type = if number == killer { "work.kill" } else { "work.it" };
        Event::builder(Source::System, event_type).payload(&number).build().expect("a valid event")
    });
    assert!(parent.publish_batch(events).iter().all(Result::is_ok));
    let mut deaths = 0;
    let mut member = scene.member("victim");
    wait_until("all are settled", || {
        if member.has_ended() {
            deaths += 1;
            member = scene.member("victim");
        }
        count(&parent, Status::Completed) + count(&parent, Status::Failed) == EVENTS
    });
    drop(member);
    assert_eq!((count(&parent, Status::Completed), count(&parent, Status::Failed)), (EVENTS - 1, 1));
    let letters = parent.dead_letters(&DeadLetterFilter::default()).expect("it answers");
    let [letter] = &letters[..] else { panic!("one dead letter: {letters:?}") };
    assert_eq!((letter.event.event_type().as_str(), letter.reason), ("work.kill", DeadReason::CrashLoop));
    parent.stop(PATIENCE);
    // One crash without a mark, because the event is no suspect yet, and three with one.
    assert_eq!(deaths, 4);
    let calls = calls(&scene.ledger);
    let handled: BTreeSet<&String> = calls.iter().collect();
    assert_eq!(handled.len() as u64, EVENTS - 1);
    println!(
        "  1 dead letter, {} completed, {deaths} deaths, {} handled twice",
        handled.len(),
        calls.len() - handled.len()
    );
}

/// Events accepted by a publisher that was killed are delivered to the next member.
fn killed_publishers(scene: &mut Scene<'_>) {
    scene.declare();
    let kills = setting("KILLS", 10);
    for _ in 0..kills {
        let before = lines(&scene.ledger).len();
        let mut member = scene.member("publisher");
        wait_until("something is accepted", || lines(&scene.ledger).len() > before);
        thread::sleep(Duration::from_millis(scene.random.below(60)));
        member.kill();
        scene.place.check();
    }
    let accepted: BTreeSet<String> = calls(&scene.ledger).into_iter().collect();
    let broker = scene.broker();
    let (sender, handled) = std::sync::mpsc::channel();
    broker
        .subscribe_with(work(), move |delivery| {
            // The receiver is dropped when the case has ended.
            let _ = sender.send(delivery.event().id().to_string());
        })
        .expect("a subscription");
    let (mut missing, mut unanswered) = (accepted.clone(), BTreeSet::new());
    while !missing.is_empty() {
        let id = handled.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("{} were lost", missing.len()));
        missing.remove(&id);
        unanswered.extend(Some(id).filter(|id| !accepted.contains(id)));
    }
    broker.stop(PATIENCE);
    println!("  {kills} kills, {} accepted, lost 0, stored and not answered {}", accepted.len(), unanswered.len());
}

/// F10: the leases of a frozen member are taken over, and its late verdicts change nothing.
fn frozen(scene: &mut Scene<'_>) {
    const EVENTS: u64 = 600;
    let ledger = &scene.ledger;
    scene.declare();
    let broker = scene.broker();
    let member = scene.member("consumer");
    let event = |event_type| Event::builder(Source::System, event_type).payload(&0).build().expect("a valid event");
    assert!(broker.publish_batch((0..EVENTS).map(|_| event("work.it"))).iter().all(Result::is_ok));
    wait_until("the member works", || !lines(ledger).is_empty());
    scene.place.freeze(&member);
    let before = lines(ledger).len();
    let ledger_here = Ledger::open(ledger);
    let id = broker
        .subscribe_with(work(), move |delivery| ledger_here.write(&format!("{} here", delivery.event().id())))
        .expect("a subscription");
    wait_until("this member takes over", || count(&broker, Status::Completed) == EVENTS);
    thread::sleep(3 * LEASE);
    let settled = scene.place.deliveries();
    member.freeze(false);
    // When the member handles a new event, it has already sent its late verdicts.
    broker.unsubscribe(id).expect("it is there");
    let last = broker.publish(event("work.last")).expect("it is accepted").id;
    wait_until("the member is awake", || calls(ledger).contains(&last.to_string()));
    wait_until("all are settled", || count(&broker, Status::Completed) == EVENTS + 1);
    assert_eq!(scene.place.deliveries()[..settled.len()], settled, "no late verdict was stored");
    let all = lines(ledger);
    let ids: BTreeSet<&str> = all.iter().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(ids.len() as u64, EVENTS + 1);
    let by_member = all.iter().filter(|line| !line.ends_with(" here")).count();
    let (late, here) = (by_member - before - 1, all.len() - by_member);
    assert!(here > 0, "the member held no lease when it was frozen");
    assert!(late <= 4, "{late} calls of lost leases: more than the 4 that ran when the member was frozen");
    broker.stop(PATIENCE);
    println!(
        "  {EVENTS} events, {before} before it was frozen, {here} taken over, handled twice {}",
        all.len() - ids.len()
    );
}

/// F31: the wall clock of one member jumps forward and back, and neither member loses a lease to the other.
fn jumping_clock(scene: &mut Scene<'_>) {
    const EACH: u64 = 100;
    const JUMPS: [&str; 4] = ["+0", "+3600", "-3600", "+0"];
    let offset = scene.folder.file("offset");
    // Renamed into place, because a member may read the file at any moment.
    let jump = |to: &str| {
        let next = offset.with_extension("next");
        fs::write(&next, to).and_then(|()| fs::rename(&next, &offset)).expect("a file");
    };
    jump(JUMPS[0]);
    scene.declare();
    let broker = scene.broker();
    let address = scene.place.address();
    let _members = [Member::with_clock("flaky", address, &scene.ledger, &offset), scene.member("flaky")];
    let published = scene.folder.file("published");
    let mut publisher = Member::with_clock("publisher", address, &published, &offset);
    let (mut accepted, mut number) = (Accepted::default(), 0);
    for to in JUMPS {
        jump(to);
        let before = (calls(&scene.ledger).len(), calls(&published).len());
        for _ in 0..EACH {
            number += 1;
            let event = event(&format!("k{}", number % (4 * KEYS)), number);
            broker.publish(event.clone()).expect("it is accepted");
            accepted.enter(&event, number);
        }
        wait_until("both proceed", || {
            calls(&scene.ledger).len() > before.0 + 20 && calls(&published).len() > before.1 + 20
        });
        thread::sleep(LEASE);
    }
    publisher.kill();
    let by_publisher: BTreeSet<String> = calls(&published).into_iter().collect();
    let is_handled = || {
        let calls = calls(&scene.ledger);
        accepted.is_handled(&calls) && calls.into_iter().collect::<BTreeSet<_>>().is_superset(&by_publisher)
    };
    wait_until("all are handled", is_handled);
    let half_an_hour = Duration::from_secs(1_800);
    let created = by_publisher.iter().step_by(10).map(|id| {
        let event = broker.get(&id.parse().expect("an id")).expect("it answers").expect("it is held");
        event.created_at()
    });
    let created: Vec<SystemTime> = created.collect();
    let (late, early) = (SystemTime::now() + half_an_hour, SystemTime::now() - half_an_hour);
    assert!(created.iter().any(|at| *at > late) && created.iter().any(|at| *at < early), "the clock has jumped");
    broker.stop(PATIENCE);
    let handled: Vec<String> = calls(&scene.ledger);
    let ours: Vec<String> = handled.iter().filter(|id| accepted.has(id)).cloned().collect();
    let account = accepted.account(&ours);
    scene.site.check(&account);
    let all: BTreeSet<&String> = handled.iter().collect();
    let waited: Vec<u64> =
        lines(&scene.ledger).iter().filter_map(|line| line.split(' ').nth(1)?.parse().ok()).collect();
    let (shortest, longest) = (waited.iter().min().copied(), waited.iter().max().copied());
    println!(
        "  {} jumps, {account}; {} by the publisher, handled twice {}, retries after {shortest:?} to {longest:?} ms",
        JUMPS.len() - 1,
        by_publisher.len(),
        handled.len() - all.len()
    );
    assert!(!scene.site.is_exact() || handled.len() == all.len(), "a lease was lost");
    let soonest = RETRY_AFTER.mul_f64(0.89).as_millis() as u64;
    assert!(shortest.is_some_and(|it| it >= soonest) && longest.is_some_and(|it| it < soonest + 3_000));
}

fn named(scene: &mut Scene<'_>) {
    let try_name = || take_name(scene.site, scene.place.address());
    let mut member = scene.member("named");
    wait_until("the member has the name", || lines(&scene.ledger).len() == 1);
    assert!(matches!(try_name(), Err(StartError::InstanceTaken { .. })), "it lives");
    let killed = Instant::now();
    member.kill();
    let mut next = None;
    wait_until("its holder has died", || {
        next = try_name().ok();
        next.is_some()
    });
    let took = killed.elapsed();
    assert!(took < scene.site.name_stays() + Duration::from_secs(3), "{took:?}");
    println!("  free after {took:?}");
    assert!(next.is_some_and(|broker| broker.stop(PATIENCE).is_clean()));
}

fn idle(scene: &mut Scene<'_>) {
    scene.declare();
    let member = scene.member("idle");
    let parent = scene.broker();
    parent.publish(event("-", 0)).expect("it is accepted");
    wait_until("the member has worked", || lines(&scene.ledger).len() == 1);
    parent.stop(PATIENCE);
    thread::sleep(Duration::from_secs(2).max(3 * LEASE));
    let (before, began) = (member.wake_ups(), Instant::now());
    thread::sleep(Duration::from_secs(5));
    let per_second = (member.wake_ups() - before) as f64 / began.elapsed().as_secs_f64();
    println!("  {per_second:.1} wake-ups a second");
    assert!(per_second < 20.0);
}

/// F11, F14, F20, F25: the back end crashes, freezes or closes all connections, and recovers.
fn disturbed(scene: &mut Scene<'_>) {
    const ROUNDS: usize = 4;
    scene.declare();
    let _members = [scene.member("consumer"), scene.member("consumer")];
    let broker = scene.broker();
    let (accepted, stop) = (Mutex::new(BTreeSet::new()), AtomicBool::new(false));
    let so_many = || accepted.lock().expect("no panic under the lock").len();
    let (mut faults, mut slowest) = (Vec::new(), Duration::ZERO);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    // While the back end is away the outcome may be unknown: such an event is not counted.
                    if let Ok(held) = broker.publish(event("-", 0)) {
                        accepted.lock().expect("no panic under the lock").insert(held.id.to_string());
                    }
                    // Slow enough for the members to keep up.
                    thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let _stop = Stop(&stop);
        for round in 0..ROUNDS {
            let before = calls(&scene.ledger).len();
            wait_until("events are handled", || calls(&scene.ledger).len() > before + 20);
            thread::sleep(Duration::from_millis(scene.random.below(60)));
            let Some(&fault) = scene.place.faults().iter().cycle().nth(round) else { break };
            scene.place.suffer(fault, if fault == Fault::Freeze { FREEZE } else { DEATH });
            let back = Instant::now();
            // More than could have been in flight before the fault.
            let (published, handled) = (so_many(), calls(&scene.ledger).len());
            wait_until("it resumes", || so_many() > published + 8 && calls(&scene.ledger).len() > handled + 8);
            slowest = slowest.max(back.elapsed());
            faults.push(fault);
        }
    });
    let accepted = accepted.into_inner().expect("no panic under the lock");
    let handled = || -> BTreeSet<String> { calls(&scene.ledger).into_iter().collect() };
    wait_until("all are handled", || handled().is_superset(&accepted));
    broker.stop(PATIENCE);
    let all = calls(&scene.ledger).len();
    let twice = all - handled().len();
    println!(
        "  {faults:?}, {} accepted, lost 0, handled twice {twice} of {all}, resumed within {slowest:?}",
        accepted.len()
    );
    assert!(slowest < RECOVERY, "it resumed {slowest:?} after the back end had recovered");
}
