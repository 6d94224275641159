//! Requeue: a dead letter is delivered again to the subscription that failed, and only to it, with a full set of
//! attempts.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use eventbroker::dead_letter::{DeadLetter, DeadLetterFilter};
use eventbroker::error::RequeueError;
use eventbroker::{Broker, Config, HandlerError, Pattern, RetryPolicy, Source, Status};
use eventbroker::{Event, SubscribeOptions, Verdict};

use crate::support::{Gate, PATIENCE, Settlements, event, in_time, keyed, receive, wait_until};

fn all(broker: &Broker) -> Vec<DeadLetter> {
    broker.dead_letters(&DeadLetterFilter::default()).expect("the back end answers")
}

/// Makes handlers fail until it is mended.
#[derive(Clone, Default)]
struct Fuse(Arc<AtomicBool>);

impl Fuse {
    fn handle(&self, message: &str) -> Result<(), HandlerError> {
        if self.0.load(Ordering::SeqCst) { Ok(()) } else { Err(HandlerError::permanent(message)) }
    }

    fn mend(&self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A broker whose handler fails until the fuse is mended; after that it waits at the gate.
fn held_when_mended() -> (Broker, Fuse, Gate) {
    let broker = Broker::builder().start().expect("valid settings");
    let (fuse, gate) = (Fuse::default(), Gate::closed());
    let (mended, pass) = (fuse.clone(), gate.clone());
    broker
        .subscribe("x", move |_| {
            mended.handle("broken")?;
            pass.pass();
            Ok::<_, HandlerError>(())
        })
        .expect("valid");
    (broker, fuse, gate)
}

#[test]
fn a_requeued_event_reaches_only_the_subscription_that_failed() {
    let broker = Broker::builder().retry_policy(RetryPolicy::fixed(1, Duration::ZERO)).start().expect("valid settings");
    let (calls, called): (Sender<(String, u32)>, Receiver<_>) = channel();
    let fuse = Fuse::default();
    for (name, fuse) in [("fails", Some(fuse.clone())), ("works", None)] {
        let calls = calls.clone();
        broker
            .subscribe_with(SubscribeOptions::new("x").name(name), move |delivery| {
                let _ = calls.send((delivery.name().to_owned(), delivery.attempt()));
                match &fuse {
                    Some(fuse) if !fuse.0.load(Ordering::SeqCst) => Err("no"),
                    _ => Ok(()),
                }
            })
            .expect("valid");
    }
    let id = broker.publish_sync(event("x")).expect("room").id;
    let mut first: Vec<_> = called.try_iter().collect();
    first.sort();
    assert_eq!(first, [("fails".to_owned(), 1), ("fails".to_owned(), 2), ("works".to_owned(), 1)]);
    let settlements = Settlements::of(&broker);
    assert_eq!(all(&broker)[0].requeues, 0);

    // The event fails again, after all attempts from 1.
    broker.requeue(all(&broker)[0].id).expect("the letter is there");
    let settled = settlements.next();
    assert_eq!((settled.id, settled.verdict, settled.attempts), (id, Verdict::Dead, 2));
    assert_eq!(called.try_iter().collect::<Vec<_>>(), [("fails".to_owned(), 1), ("fails".to_owned(), 2)]);
    let letters = all(&broker);
    assert_eq!((letters.len(), letters[0].requeues, letters[0].attempts, letters[0].errors.len()), (1, 1, 2, 2));

    fuse.mend();
    broker.requeue(letters[0].id).expect("the letter is there");
    assert_eq!(settlements.next().verdict, Verdict::Done);
    assert_eq!(called.try_iter().collect::<Vec<_>>(), [("fails".to_owned(), 1)]);
    assert_eq!(broker.dead_letter_count().expect("the back end answers"), 0);
    wait_until("all are settled", || broker.stats().in_flight == 0);
    let stats = broker.stats();
    assert_eq!((stats.deliveries.dead, stats.deliveries.done), (2, 2));
    // The event and the notices of its two dead letters.
    assert_eq!((stats.accepted, stats.completed, stats.failed), (3, 3, 0));
}

#[test]
fn a_requeued_event_goes_from_failed_to_completed_and_its_error_is_cleared() {
    let (broker, fuse, gate) = held_when_mended();
    let settlements = Settlements::of(&broker);
    let id = broker.publish_sync(event("x")).expect("room").id;
    settlements.next();
    let read = || broker.get(&id).expect("no back end").expect("stored");
    let failed = read();
    assert_eq!((failed.status(), failed.error()), (Status::Failed, Some("broken")));
    assert_eq!((broker.stats().failed, broker.stats().in_flight), (1, 0));

    fuse.mend();
    broker.requeue(all(&broker)[0].id).expect("the letter is there");
    gate.wait_for_arrival();
    let again = read();
    assert_eq!((again.status(), again.error(), again.completed_at()), (Status::Processing, None, None));
    assert_eq!((broker.stats().failed, broker.stats().in_flight), (0, 1));
    gate.open();
    settlements.next();
    let done = read();
    assert_eq!((done.status(), done.error()), (Status::Completed, None));
    assert!(done.completed_at() >= failed.completed_at());
}

#[test]
fn an_event_stays_failed_while_another_of_its_deliveries_is_dead() {
    let broker = Broker::builder().start().expect("valid settings");
    let fuse = Fuse::default();
    let mended = fuse.clone();
    broker.subscribe_with(SubscribeOptions::new("x").name("one"), move |_| mended.handle("one")).expect("valid");
    let other = Fuse::default();
    let mended = other.clone();
    broker.subscribe_with(SubscribeOptions::new("x").name("two"), move |_| mended.handle("two")).expect("valid");
    let settlements = Settlements::of(&broker);
    let id = broker.publish_sync(event("x")).expect("room").id;
    settlements.take(2);
    let status = || broker.get(&id).expect("no back end").map(|event| event.status());
    let letter_of =
        |name: &str| all(&broker).into_iter().find(|letter| &*letter.name == name).expect("a dead letter").id;
    fuse.mend();
    broker.requeue(letter_of("one")).expect("the letter is there");
    settlements.next();
    assert_eq!(status(), Some(Status::Failed));
    other.mend();
    broker.requeue(letter_of("two")).expect("the letter is there");
    settlements.next();
    assert_eq!(status(), Some(Status::Completed));
}

#[test]
fn a_requeued_event_that_was_evicted_returns_to_the_store() {
    let broker = Broker::builder().max_events(2).start().expect("valid settings");
    let (fuse, gate) = (Fuse::default(), Gate::closed());
    let (mended, pass) = (fuse.clone(), gate.clone());
    broker
        .subscribe("x", move |_| {
            mended.handle("broken")?;
            pass.pass();
            Ok::<_, HandlerError>(())
        })
        .expect("valid");
    let settlements = Settlements::of(&broker);
    for id in ["gone", "later"] {
        let event = Event::builder(Source::System, "x").id(id).build().expect("valid");
        broker.publish_sync(event).expect("room");
        settlements.next();
    }
    (0..4).for_each(|_| drop(broker.publish(event("filler")).expect("room")));
    let letter = all(&broker).remove(0);
    assert_eq!(broker.get(letter.event.id()).expect("no back end"), None);

    fuse.mend();
    broker.requeue(letter.id).expect("the letter is there");
    gate.wait_for_arrival();
    let status = || broker.get(letter.event.id()).expect("no back end").map(|event| event.status());
    assert_eq!(status(), Some(Status::Processing), "an open event is in the store");
    let again = Event::builder(Source::System, "x").id("gone").build().expect("valid");
    assert!(broker.publish(again).expect("known").duplicate);
    gate.open();
    assert_eq!(settlements.next().verdict, Verdict::Done);
    assert_eq!(status(), Some(Status::Completed));
    let (stats, store) = (broker.stats(), broker.store_stats());
    assert_eq!((stats.in_flight, stats.failed, stats.completed), (0, 1, 7));
    assert!(store.events <= 2, "{store:?}");
}

#[test]
fn all_matching_dead_letters_are_requeued_oldest_first() {
    let broker = Broker::builder().start().expect("valid settings");
    let fuse = Fuse::default();
    let mended = fuse.clone();
    broker.subscribe_with(SubscribeOptions::new("a.*").ordered(), move |_| mended.handle("no")).expect("valid");
    let ids: Vec<_> =
        ["a.x", "a.y", "a.x", "a.x"].iter().map(|it| broker.publish_sync(event(it)).expect("room").id).collect();
    let settlements = Settlements::of(&broker);
    fuse.mend();
    let of_x = DeadLetterFilter { event_type: Pattern::parse("a.x").ok(), ..DeadLetterFilter::default() };
    assert_eq!(broker.requeue_matching(&DeadLetterFilter { limit: Some(2), ..of_x.clone() }), Ok(2));
    let settled: Vec<_> = settlements.take(2).into_iter().map(|it| it.id).collect();
    assert_eq!(settled, [ids[0].clone(), ids[2].clone()]);
    assert_eq!(broker.requeue_matching(&of_x), Ok(1));
    assert_eq!(settlements.next().id, ids[3]);
    assert_eq!(broker.requeue_matching(&of_x), Ok(0));
    let left = all(&broker);
    assert!(left.len() == 1 && left[0].event.event_type().as_str() == "a.y");
}

#[test]
fn a_later_subscription_of_the_same_name_receives_the_event() {
    let broker = Broker::builder().start().expect("valid settings");
    let options = || SubscribeOptions::new("x").name("mailer");
    let broken = broker.subscribe_with(options(), |_| Err::<(), _>(HandlerError::permanent("no"))).expect("valid");
    let id = broker.publish_sync(event("x")).expect("room").id;
    broker.unsubscribe(broken).expect("subscribed");
    let letter = all(&broker).remove(0);

    let refused = broker.requeue(letter.id).expect_err("no subscription of this name");
    assert_eq!(refused, RequeueError::SubscriptionGone { id: letter.id, name: "mailer".into() });
    let text = format!("dead letter {}: subscription mailer does not exist any more", letter.id);
    assert_eq!(refused.to_string(), text);
    assert_eq!(all(&broker), std::slice::from_ref(&letter), "the dead letter stays");
    assert_eq!(broker.requeue_matching(&DeadLetterFilter::default()), Ok(0));
    assert_eq!(broker.dead_letter_count().expect("the back end answers"), 1);

    let (sender, received) = channel();
    let handler = move |delivery: &eventbroker::Delivery<'_>| {
        let _ = sender.send(delivery.event().id().clone());
    };
    broker.subscribe_with(options(), handler).expect("valid");
    broker.requeue(letter.id).expect("requeued");
    assert_eq!(receive(&received, "the event"), id);
    wait_until("the event is completed", || {
        broker.get(&id).expect("no back end").is_some_and(|event| event.status() == Status::Completed)
    });
}

#[test]
fn a_requeue_of_an_unknown_id_or_after_stop_is_refused() {
    let broker = Broker::builder().start().expect("valid settings");
    broker.subscribe("x", |_| Err::<(), _>(HandlerError::permanent("no"))).expect("valid");
    broker.publish_sync(event("x")).expect("room");
    let letter = all(&broker).remove(0);
    assert_eq!(broker.requeue(99), Err(RequeueError::NotFound { id: 99 }));
    assert_eq!(RequeueError::NotFound { id: 99 }.to_string(), "dead letter not found: 99");
    assert!(broker.stop(PATIENCE).is_clean());
    assert_eq!(broker.requeue(letter.id), Err(RequeueError::NotRunning));
    assert_eq!(broker.requeue_matching(&DeadLetterFilter::default()), Err(RequeueError::NotRunning));
    assert_eq!(all(&broker).len(), 1, "dead letters can still be read");
}

#[test]
fn a_requeue_does_not_end_the_wait_of_a_publish_sync() {
    let broker = Broker::builder().start().expect("valid settings");
    let fuse = Fuse::default();
    let mended = fuse.clone();
    broker.subscribe_with(SubscribeOptions::new("x").name("fails"), move |_| mended.handle("no")).expect("valid");
    let gate = Gate::closed();
    let pass = gate.clone();
    broker.subscribe_with(SubscribeOptions::new("x").name("slow"), move |_| pass.pass()).expect("valid");
    let settlements = Settlements::of(&broker);

    let publisher = broker.clone();
    let (sender, report) = channel();
    std::thread::spawn(move || sender.send(publisher.publish_sync(event("x"))));
    assert_eq!(settlements.next().verdict, Verdict::Dead);
    fuse.mend();
    broker.requeue(all(&broker)[0].id).expect("the letter is there");
    assert_eq!(settlements.next().verdict, Verdict::Done);
    gate.open();
    let report = receive(&report, "the report").expect("room");
    assert!(report.open.is_empty(), "publish_sync waits for the slow delivery: {report:?}");
    let mut verdicts: Vec<_> = report.settled.iter().map(|it| (&*it.name, it.verdict)).collect();
    verdicts.sort_unstable_by_key(|it| it.0);
    assert_eq!(verdicts, [("fails", Verdict::Dead), ("slow", Verdict::Done)]);
}

#[test]
fn a_requeued_delivery_waits_behind_its_key() {
    let (broker, fuse, gate) = held_when_mended();
    broker.publish_sync(keyed("x", "k")).expect("room");
    fuse.mend();
    let running = broker.publish(keyed("x", "k")).expect("room").id;
    gate.wait_for_arrival();
    let letter = all(&broker).remove(0);
    let settlements = Settlements::of(&broker);
    broker.requeue(letter.id).expect("the letter is there");
    assert_eq!(gate.arrivals(), 0);
    gate.open();
    let settled: Vec<_> = settlements.take(2).into_iter().map(|it| it.id).collect();
    assert_eq!(settled, [running, letter.event.id().clone()]);
}

#[test]
fn a_dead_letter_that_cannot_be_requeued_is_always_listed() {
    let mut config = Config::default();
    config.max_dead_letters = 3;
    let broker = Broker::builder().config(config).start().expect("valid settings");
    let fails = |_: &eventbroker::Delivery<'_>| Err::<(), _>(HandlerError::permanent("no"));
    let gone = broker.subscribe_with(SubscribeOptions::new("gone"), fails).expect("valid");
    broker.subscribe_with(SubscribeOptions::new("here"), fails).expect("valid");
    (0..3).for_each(|_| drop(broker.publish_sync(event("gone")).expect("room")));
    broker.unsubscribe(gone).expect("subscribed");
    // None of these can be requeued: each must be listed at every moment.
    in_time("the race", move || {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    assert_eq!(broker.requeue_matching(&DeadLetterFilter::default()), Ok(0));
                }
            });
            for _ in 0..2_000 {
                assert_eq!(broker.dead_letter_count().expect("the back end answers"), 3);
            }
        });
    });
}
