//! Publishing to a back end: an event is accepted once the back end has it, and refusals, outages and lost answers are
//! survived.

use std::collections::BTreeSet;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::error::FullLimit;
use eventbroker::query::Filter;
use eventbroker::{Config, PublishError};
use eventbroker_conformance::loopback::Loopback;

use super::loopback::{RECOVERY, bridge_stats, broker, broker_with, finish, local, named, next};
use crate::support::{PATIENCE, event, listen, numbered, open_gate};

#[test]
fn an_event_is_accepted_when_the_back_end_has_stored_it_and_not_before() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let calls = listen(&broker, local("here", "held.*"), &open_gate());
    loopback.hold_sends(true);
    let sent = event("held.it");
    let receipt = broker.publish_async(sent.clone()).expect("accepted");
    loopback.wait_until("the event is being sent", |server| server.sends == 1);
    let early = receipt.wait(Duration::ZERO).expect_err("the back end has not answered");
    assert_eq!((early.code(), early.event()), ("unknown", &sent));
    assert_eq!(bridge_stats(&broker).mirror_backlog, 1);
    assert!(calls.try_recv().is_err(), "an event is dispatched only after it is accepted");
    loopback.hold_sends(false);
    let accepted = receipt.wait(PATIENCE).expect("accepted");
    assert_eq!((&accepted.id, accepted.duplicate, accepted.deliveries), (sent.id(), false, 1));
    assert!(loopback.inspect(|server| server.events.contains_key(sent.id())));
    assert_eq!(next(&calls), *sent.id());
    finish(&broker);
}

#[test]
fn publishes_share_round_trips() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    loopback.hold_sends(true);
    let first = broker.publish_async(event("batch.first")).expect("accepted");
    loopback.wait_until("the first is being sent", |server| server.sends == 1);
    let receipts: Vec<_> = (0..100).map(|it| broker.publish_async(numbered("batch.it", it)).expect("room")).collect();
    loopback.hold_sends(false);
    for receipt in receipts.iter().chain([&first]) {
        receipt.wait(PATIENCE).expect("accepted");
    }
    assert_eq!(loopback.inspect(|server| (server.sends, server.events.len())), (2, 101));
    assert_eq!(bridge_stats(&broker).mirrored, 101);
    finish(&broker);
}

#[test]
fn an_event_that_the_back_end_refuses_is_returned_and_leaves_nothing() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let calls = listen(&broker, local("here", "refused.*").queue_capacity(1), &open_gate());
    loopback.refuse(Some("no such stream"));
    let sent = event("refused.it");
    for _ in 0..3 {
        match broker.publish(sent.clone()) {
            Err(PublishError::Rejected { event, reason }) => {
                assert_eq!(*event, sent);
                assert_eq!(reason, "no such stream");
            }
            other => panic!("not refused: {other:?}"),
        }
    }
    assert_eq!(broker.get(sent.id()), Ok(None));
    assert_eq!(broker.list(&Filter::default()).expect("the back end answers").events, []);
    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.rejected), (0, 3));
    loopback.refuse(None);
    assert!(!broker.publish(sent.clone()).expect("accepted").duplicate);
    assert_eq!(next(&calls), *sent.id());
    finish(&broker);
    assert_eq!(calls.try_iter().count(), 0);
}

#[test]
fn a_publish_waits_for_an_unavailable_back_end_and_goes_on_after_the_outage() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let shared = listen(&broker, named("shared", "away.*"), &open_gate());
    loopback.set_unavailable(true);
    let sent = event("away.it");
    let receipt = broker.publish_async(sent.clone()).expect("accepted without the back end");
    loopback.wait_until("the send was retried", |server| server.failures >= 6);
    assert_eq!(receipt.wait(Duration::ZERO).expect_err("no response yet").code(), "unknown");
    let stats = bridge_stats(&broker);
    assert!(stats.errors >= 1, "{stats:?}");
    let error = stats.last_error.expect("the last error");
    assert!(error.contains("the loopback was switched off"), "{error}");
    loopback.set_unavailable(false);
    let back = Instant::now();
    receipt.wait(PATIENCE).expect("accepted");
    assert_eq!(next(&shared), *sent.id());
    assert!(back.elapsed() < RECOVERY, "it took {:?}", back.elapsed());
    finish(&broker);
}

#[test]
fn a_publish_without_a_response_in_time_is_unknown_and_can_be_repeated() {
    let loopback = Loopback::new();
    let config = {
        let mut config = Config::default();
        config.sync_timeout = Duration::from_millis(50);
        config
    };
    let broker = broker_with(&loopback, config);
    let calls = listen(&broker, named("shared", "late.*"), &open_gate());
    loopback.set_unavailable(true);
    let sent = event("late.it");
    let unknown = broker.publish(sent.clone()).expect_err("no response");
    assert_eq!((unknown.code(), unknown.event()), ("unknown", &sent));
    loopback.set_unavailable(false);
    loopback.wait_until("the event is stored after all", |server| server.events.contains_key(sent.id()));
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = broker.publish(unknown.event().clone()) {
        assert!(Instant::now() < deadline, "{error}");
        assert_eq!(error.code(), "unknown");
    }
    assert_eq!(next(&calls), *sent.id());
    finish(&broker);
    assert_eq!(calls.try_iter().count(), 0, "the repeated publish is a duplicate");
}

#[test]
fn a_publish_whose_response_is_lost_is_repeated() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let here = listen(&broker, local("here", "lost.*"), &open_gate());
    let shared = listen(&broker, named("shared", "lost.*"), &open_gate());
    loopback.lose_answers(2);
    let sent = event("lost.it");
    assert!(!broker.publish(sent.clone()).expect("accepted").duplicate);
    assert_eq!(loopback.inspect(|server| (server.sends, server.events.len())), (3, 1));
    assert_eq!((next(&here), next(&shared)), (sent.id().clone(), sent.id().clone()));
    finish(&broker);
    assert_eq!(here.try_iter().chain(shared.try_iter()).count(), 0);
}

#[test]
fn local_and_shared_subscriptions_each_receive_every_event_once() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let here = listen(&broker, local("here", "race.*"), &open_gate());
    let shared = listen(&broker, named("shared", "race.*"), &open_gate());
    let receipts: Vec<_> = (0..300).map(|it| broker.publish_async(numbered("race.it", it)).expect("room")).collect();
    let mut ids = BTreeSet::new();
    for receipt in receipts {
        let accepted = receipt.wait(PATIENCE).expect("accepted");
        assert_eq!((accepted.duplicate, accepted.deliveries), (false, 1));
        ids.insert(accepted.id);
    }
    for calls in [&here, &shared] {
        assert_eq!((0..300).map(|_| next(calls)).collect::<BTreeSet<_>>(), ids);
    }
    finish(&broker);
    assert_eq!(here.try_iter().chain(shared.try_iter()).count(), 0);
}

#[test]
fn a_synchronous_publish_runs_local_subscriptions_after_the_back_end_has_the_event() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let held = loopback.clone();
    broker
        .subscribe_with(local("here", "sync.*"), move |delivery| {
            let id = delivery.event().id();
            if held.inspect(|server| server.events.contains_key(id)) { Ok(()) } else { Err("it is not held") }
        })
        .expect("a subscription");
    let shared = listen(&broker, named("shared", "sync.*"), &open_gate());
    for number in 0..50 {
        // With a lost response, the event is delivered before the publisher has its result.
        loopback.lose_answers(number as u32 % 2);
        let report = broker.publish_sync(numbered("sync.it", number)).expect("accepted");
        assert!(!report.duplicate && report.is_success(), "{report:?}");
        assert_eq!((report.settled.len(), report.settled[0].attempts), (1, 1));
        assert_eq!(next(&shared), report.id);
    }
    loopback.refuse(Some("no"));
    let error = broker.publish_sync(event("sync.refused")).expect_err("refused");
    assert_eq!(error.code(), "rejected");
    finish(&broker);
    assert_eq!(shared.try_iter().count(), 0);
}

#[test]
fn the_backlog_of_unsent_events_is_bounded() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    loopback.set_unavailable(true);
    let mut accepted = Vec::new();
    let full = loop {
        match broker.publish_async(event("backlog.it")) {
            Ok(receipt) => accepted.push(receipt),
            Err(error) => break error,
        }
        assert!(accepted.len() < 100_000, "there is no bound");
    };
    assert!(matches!(full, PublishError::Full { limit: FullLimit::Mirror { .. }, .. }), "{full}");
    loopback.set_unavailable(false);
    for receipt in &accepted {
        receipt.wait(PATIENCE).expect("accepted");
    }
    assert_eq!(loopback.inspect(|server| server.events.len()), accepted.len());
    finish(&broker);
}

#[test]
fn concurrent_publishes_of_one_id_are_one_event() {
    let loopback = Loopback::new();
    let brokers = [broker(&loopback), broker(&loopback)];
    let calls = listen(&brokers[0], named("once", "once.*"), &open_gate());
    let sent = event("once.it");
    let at_once = Barrier::new(8);
    thread::scope(|scope| {
        for number in 0..8 {
            let (broker, sent, at_once) = (&brokers[number % 2], sent.clone(), &at_once);
            scope.spawn(move || {
                at_once.wait();
                broker.publish(sent).expect("accepted");
            });
        }
    });
    assert_eq!(next(&calls), *sent.id());
    brokers.iter().for_each(finish);
    assert_eq!(calls.try_iter().count(), 0);
    assert_eq!(loopback.inspect(|server| server.settlements.len()), 1);
}
