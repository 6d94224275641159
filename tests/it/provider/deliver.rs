//! Deliveries from a back end: each has a lease, which is settled after the handler.

use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use std::time::Duration;

use eventbroker::dead_letter::{DeadLetterFilter, DeadReason};
use eventbroker::{Broker, EventId, HandlerError, RetryPolicy, Status};
use eventbroker_conformance::loopback::Loopback;

use super::loopback::{bridge_stats, broker, finish, local, named, next};
use crate::support::{Gate, event, listen, numbered, open_gate, wait_until};

#[test]
fn a_lease_is_settled_after_the_handler_and_not_before() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let gate = Gate::closed();
    let calls = listen(&broker, named("shared", "lease.*"), &gate);
    let id = broker.publish(event("lease.it")).expect("accepted").id;
    assert_eq!(next(&calls), id);
    assert_eq!(loopback.inspect(|server| (server.leased(), server.settlements.len())), (1, 0));
    gate.open();
    loopback.wait_until("the lease is settled", |server| server.done("shared") == 1);
    assert_eq!(loopback.inspect(|server| server.leased()), 0);
    assert_eq!(bridge_stats(&broker).ingested, 1);
    finish(&broker);
}

#[test]
fn retries_keep_the_lease_and_a_dead_letter_ends_it() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let held = loopback.clone();
    broker
        .subscribe_with(named("dead", "dead.*"), move |_| {
            assert_eq!(
                held.inspect(|server| (server.leased(), server.settlements.len())),
                (1, 0),
                "the event is still leased"
            );
            Err::<(), _>("never")
        })
        .expect("a subscription");
    broker.subscribe_with(named("skips", "skipped.*"), |_| Err::<(), _>(HandlerError::skip())).expect("a subscription");
    let id = broker.publish(event("dead.it")).expect("accepted").id;
    loopback.wait_until("the lease is settled", |server| {
        server.dead_letters.values().any(|it| it.letter.reason == DeadReason::Exhausted && it.letter.attempts == 4)
    });
    let letters = broker.dead_letters(&DeadLetterFilter::default()).expect("the back end answers");
    assert_eq!((letters.len(), letters[0].event.id(), letters[0].attempts), (1, &id, 4));
    assert_eq!(letters[0].errors[3].message, "never");
    broker.publish(event("skipped.it")).expect("accepted");
    loopback.wait_until("the lease is settled", |server| server.done("skips") == 1);
    finish(&broker);
}

#[test]
fn local_subscriptions_have_no_lease() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let gate = Gate::closed();
    let calls = listen(&broker, local("here", "local.*"), &gate);
    let id = broker.publish(event("local.it")).expect("accepted").id;
    assert_eq!(next(&calls), id);
    assert_eq!(loopback.inspect(|server| (server.leased(), server.queues.len())), (0, 0));
    gate.open();
    finish(&broker);
    assert_eq!(loopback.inspect(|server| server.settlements.len()), 0);
    assert_eq!(loopback.status(&id), Some(Status::Completed));
}

#[test]
fn events_published_after_subscribe_arrive() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let other = self::broker(&loopback);
    for round in 0..20 {
        let event_type = format!("at.once{round}");
        let calls = listen(&broker, named(&event_type, &event_type), &open_gate());
        let id = other.publish(event(&event_type)).expect("accepted").id;
        assert_eq!(next(&calls), id);
    }
    finish(&broker);
    finish(&other);
}

#[test]
fn two_brokers_of_a_group_handle_each_event_once() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    let gate = Gate::closed();
    let options = || named("shared", "group.*").concurrency(1).queue_capacity(5);
    let (at_one, at_two) = (listen(&one, options(), &gate), listen(&two, options(), &gate));
    let ids: BTreeSet<EventId> = (0..200).map(|it| one.publish(numbered("group.it", it)).expect("room").id).collect();
    // Neither broker has places for all events.
    let mut handled = vec![next(&at_one), next(&at_two)];
    gate.open();
    loopback.wait_until("all are settled", |server| server.done("shared") == 200);
    handled.extend(at_one.try_iter().chain(at_two.try_iter()));
    assert_eq!(handled.len(), 200, "no event is handled twice");
    assert_eq!(handled.into_iter().collect::<BTreeSet<_>>(), ids);
    let ingested = bridge_stats(&one).ingested + bridge_stats(&two).ingested;
    assert_eq!((bridge_stats(&one).mirrored, bridge_stats(&two).mirrored, ingested), (200, 0, 200));
    finish(&one);
    finish(&two);
}

#[test]
fn a_subscription_claims_no_more_than_its_places_and_blocks_no_other() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let gate = Gate::closed();
    let full = listen(&broker, named("full", "room.*").concurrency(1).queue_capacity(2), &gate);
    let quick = listen(&broker, named("quick", "room.*"), &open_gate());
    let ids: BTreeSet<EventId> = (0..10).map(|it| broker.publish(numbered("room.it", it)).expect("room").id).collect();
    next(&full);
    loopback.wait_until("all places are taken", |server| server.queues["full"].leased == 3);
    assert_eq!((0..10).map(|_| next(&quick)).collect::<BTreeSet<_>>(), ids);
    broker.publish(numbered("room.last", 0)).expect("accepted by the back end");
    next(&quick);
    assert_eq!(loopback.inspect(|server| server.queues["full"].most_leased), 3, "one call runs, two events are queued");
    gate.open();
    loopback.wait_until("all are settled", |server| server.done("full") == 11);
    assert_eq!(loopback.inspect(|server| server.released("full")), 0, "no claimed event was released");
    finish(&broker);
}

#[test]
fn a_subscription_at_max_waiting_claims_nothing() {
    let loopback = Loopback::without_deferred_retries();
    let broker = broker(&loopback);
    let hour = RetryPolicy::fixed(1, Duration::from_secs(3600));
    let (sender, calls) = channel();
    let options = named("waits", "retry.*").max_waiting(3).retry(hour);
    broker
        .subscribe_with(options, move |delivery| {
            // The receiver is gone when the test has received enough.
            let _ = sender.send(delivery.event().id().clone());
            Err::<(), _>("later")
        })
        .expect("a subscription");
    let quick = listen(&broker, named("quick", "retry.*"), &open_gate());
    for number in 0..3 {
        broker.publish(numbered("retry.it", number)).expect("accepted");
        next(&calls);
    }
    loopback.wait_until("the others are settled", |server| server.done("quick") == 3);
    wait_until("all three wait for a retry", || waiting(&broker, "waits") == 3);
    // A receive that was in progress when the bound was reached may still claim more.
    loopback.wait_until("the subscription claims no more", |server| server.queues["waits"].asked_by.is_empty());
    for number in 3..13 {
        broker.publish(numbered("retry.it", number)).expect("accepted");
    }
    (0..13).for_each(|_| drop(next(&quick)));
    assert_eq!(loopback.inspect(|server| server.released("waits")), 0, "no claimed event is released");
    assert_eq!(loopback.inspect(|server| server.queues["waits"].leased), 3);
    broker.stop(Duration::ZERO);
}

fn waiting(broker: &Broker, name: &str) -> u64 {
    broker.stats().subscriptions.iter().find(|it| &*it.name == name).expect("subscribed").waiting
}

#[test]
fn a_lost_lease_is_handled_by_another_member_and_settled_once() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    let gate = Gate::closed();
    let at_one = listen(&one, named("lost", "lost.*").concurrency(1).queue_capacity(1), &gate);
    let id = one.publish(event("lost.it")).expect("accepted").id;
    next(&at_one);
    // The first broker is full.
    one.publish(event("lost.filler")).expect("accepted");
    loopback.wait_until("both are leased", |server| server.queues["lost"].leased == 2);
    let at_two = listen(&two, named("lost", "lost.*").concurrency(1), &open_gate());
    loopback.expire_leases();
    assert_eq!(next(&at_two), id, "the oldest comes first");
    loopback.wait_until("the other member has settled both", |server| server.done("lost") == 2);
    gate.open();
    finish(&one);
    finish(&two);
    assert_eq!(loopback.inspect(|server| server.settlements.len()), 2, "the lost leases are not settled again");
    assert_eq!(loopback.status(&id), Some(Status::Completed));
}
