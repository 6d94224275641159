//! The seam to back ends: what is accepted the back end holds, what it hands out is settled after the handler, and whatever
//! fails there is survived; shown on a back end in this process, which passes the suite of all providers as well.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::dead_letter::{DeadLetterFilter, DeadReason};
use eventbroker::error::{FullLimit, SubscribeError};
use eventbroker::query::Filter;
use eventbroker::{
    Broker, Config, Event, EventId, HandlerError, PublishError, RetryPolicy, Scope, Status, SubscribeOptions,
};
use eventbroker_conformance::loopback::Loopback;
use support::{Gate, PATIENCE, event, listen, numbered, open_gate, wait_until};

mod support;

mod conformance {
    use eventbroker_conformance::loopback::Loopback;

    eventbroker_conformance::conformance_tests!(Loopback::with_broadcast);
}

/// How soon all works again when the back end is back.
const RECOVERY: Duration = Duration::from_secs(3);

fn broker(loopback: &Loopback) -> Broker {
    broker_with(loopback, Config::default())
}

fn broker_with(loopback: &Loopback, config: Config) -> Broker {
    let retry = RetryPolicy::fixed(3, Duration::from_millis(5));
    let builder = Broker::builder().config(config).worker_count(4).retry_policy(retry);
    builder.provider(loopback.provider()).start().expect("it starts")
}

fn named(name: &str, pattern: &str) -> SubscribeOptions {
    SubscribeOptions::new(pattern).name(name)
}

fn local(name: &str, pattern: &str) -> SubscribeOptions {
    named(name, pattern).scope(Scope::Local)
}

fn next(calls: &Receiver<EventId>) -> EventId {
    calls.recv_timeout(PATIENCE).expect("the handler is called")
}

fn bridge_stats(broker: &Broker) -> eventbroker::stats::BridgeStats {
    broker.stats().bridge.expect("there is a back end")
}

fn finish(broker: &Broker) {
    let report = broker.stop(PATIENCE);
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn an_event_is_accepted_when_the_back_end_holds_it_and_not_before() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let calls = listen(&broker, local("here", "held.*"), &open_gate());
    loopback.hold_sends(true);
    let sent = event("held.it");
    let receipt = broker.publish_async(sent.clone()).expect("there is room");
    loopback.wait_until("the event is being sent", |server| server.sends == 1);
    let early = receipt.wait(Duration::ZERO).expect_err("the back end has not answered");
    assert_eq!((early.code(), early.event()), ("unknown", &sent));
    assert_eq!(bridge_stats(&broker).mirror_backlog, 1);
    assert!(calls.try_recv().is_err(), "it is dispatched only when it is accepted");
    loopback.hold_sends(false);
    let accepted = receipt.wait(PATIENCE).expect("it is accepted");
    assert_eq!((&accepted.id, accepted.duplicate, accepted.deliveries), (sent.id(), false, 1));
    assert!(loopback.look(|server| server.events.contains_key(sent.id())));
    assert_eq!(next(&calls), *sent.id());
    finish(&broker);
}

#[test]
fn publishers_share_the_round_trips() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    loopback.hold_sends(true);
    let first = broker.publish_async(event("batch.first")).expect("there is room");
    loopback.wait_until("the first is being sent", |server| server.sends == 1);
    let receipts: Vec<_> = (0..100).map(|it| broker.publish_async(numbered("batch.it", it)).expect("room")).collect();
    loopback.hold_sends(false);
    for receipt in receipts.iter().chain([&first]) {
        receipt.wait(PATIENCE).expect("it is accepted");
    }
    assert_eq!(loopback.look(|server| (server.sends, server.events.len())), (2, 101));
    assert_eq!(bridge_stats(&broker).mirrored, 101);
    finish(&broker);
}

#[test]
fn what_the_back_end_refuses_comes_back_and_leaves_nothing() {
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
            other => panic!("it is refused, and its room is free again: {other:?}"),
        }
    }
    assert_eq!(broker.get(sent.id()), Ok(None));
    assert_eq!(broker.list(&Filter::default()).expect("it answers").events, []);
    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.rejected), (0, 3));
    loopback.refuse(None);
    assert!(!broker.publish(sent.clone()).expect("now it is accepted").duplicate);
    assert_eq!(next(&calls), *sent.id());
    finish(&broker);
    assert_eq!(calls.try_iter().count(), 0);
}

#[test]
fn a_publish_waits_for_a_back_end_that_is_away_and_goes_on_when_it_is_back() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let shared = listen(&broker, named("shared", "away.*"), &open_gate());
    loopback.set_unavailable(true);
    let sent = event("away.it");
    let receipt = broker.publish_async(sent.clone()).expect("it never waits for the back end");
    loopback.wait_until("it was tried again", |server| server.failures >= 6);
    assert_eq!(receipt.wait(Duration::ZERO).expect_err("nobody knows yet").code(), "unknown");
    let stats = bridge_stats(&broker);
    assert!(stats.errors >= 1, "{stats:?}");
    let error = stats.last_error.expect("the last error");
    assert!(error.contains("the loopback was switched off"), "{error}");
    loopback.set_unavailable(false);
    let back = Instant::now();
    receipt.wait(PATIENCE).expect("it is accepted");
    assert_eq!(next(&shared), *sent.id());
    assert!(back.elapsed() < RECOVERY, "it took {:?}", back.elapsed());
    finish(&broker);
}

#[test]
fn a_publish_that_is_not_answered_in_time_is_unknown_and_can_be_repeated() {
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
    let unknown = broker.publish(sent.clone()).expect_err("nobody answers");
    assert_eq!((unknown.code(), unknown.event()), ("unknown", &sent));
    loopback.set_unavailable(false);
    loopback.wait_until("it is held after all", |server| server.events.contains_key(sent.id()));
    let deadline = Instant::now() + PATIENCE;
    while let Err(error) = broker.publish(unknown.event().clone()) {
        assert!(Instant::now() < deadline, "{error}");
        assert_eq!(error.code(), "unknown");
    }
    assert_eq!(next(&calls), *sent.id());
    finish(&broker);
    assert_eq!(calls.try_iter().count(), 0, "the repetition is the same event");
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let here = listen(&broker, local("here", "lost.*"), &open_gate());
    let shared = listen(&broker, named("shared", "lost.*"), &open_gate());
    loopback.lose_answers(2);
    let sent = event("lost.it");
    assert!(!broker.publish(sent.clone()).expect("it is accepted").duplicate);
    assert_eq!(loopback.look(|server| (server.sends, server.events.len())), (3, 1));
    assert_eq!((next(&here), next(&shared)), (sent.id().clone(), sent.id().clone()));
    finish(&broker);
    assert_eq!(here.try_iter().chain(shared.try_iter()).count(), 0);
}

#[test]
fn local_subscriptions_get_what_comes_back_first() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let here = listen(&broker, local("here", "race.*"), &open_gate());
    let shared = listen(&broker, named("shared", "race.*"), &open_gate());
    let receipts: Vec<_> = (0..300).map(|it| broker.publish_async(numbered("race.it", it)).expect("room")).collect();
    let mut ids = BTreeSet::new();
    for receipt in receipts {
        let accepted = receipt.wait(PATIENCE).expect("it is accepted");
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
fn a_synchronous_publish_runs_the_local_ones_after_the_back_end_has_it() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let held = loopback.clone();
    broker
        .subscribe_with(local("here", "sync.*"), move |delivery| {
            let id = delivery.event().id();
            if held.look(|server| server.events.contains_key(id)) { Ok(()) } else { Err("it is not held") }
        })
        .expect("a subscription");
    let shared = listen(&broker, named("shared", "sync.*"), &open_gate());
    for number in 0..50 {
        // Lost answers let it come back before the publisher knows.
        loopback.lose_answers(number as u32 % 2);
        let report = broker.publish_sync(numbered("sync.it", number)).expect("it is accepted");
        assert!(!report.duplicate && report.is_success(), "{report:?}");
        assert_eq!((report.settled.len(), report.settled[0].attempts), (1, 1));
        assert_eq!(next(&shared), report.id);
    }
    loopback.refuse(Some("no"));
    let error = broker.publish_sync(event("sync.refused")).expect_err("it is refused");
    assert_eq!(error.code(), "rejected");
    finish(&broker);
    assert_eq!(shared.try_iter().count(), 0);
}

#[test]
fn the_backlog_is_bounded() {
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
        receipt.wait(PATIENCE).expect("it is accepted");
    }
    assert_eq!(loopback.look(|server| server.events.len()), accepted.len());
    finish(&broker);
}

#[test]
fn a_lease_is_settled_after_the_handler_and_not_before() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let gate = Gate::closed();
    let calls = listen(&broker, named("shared", "lease.*"), &gate);
    let id = broker.publish(event("lease.it")).expect("it is accepted").id;
    assert_eq!(next(&calls), id);
    assert_eq!(loopback.look(|server| (server.leased(), server.settlements.len())), (1, 0));
    gate.open();
    loopback.wait_until("the lease is settled", |server| server.done("shared") == 1);
    assert_eq!(loopback.look(|server| server.leased()), 0);
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
            assert_eq!(held.look(|server| (server.leased(), server.settlements.len())), (1, 0), "it is still leased");
            Err::<(), _>("never")
        })
        .expect("a subscription");
    broker.subscribe_with(named("skips", "skipped.*"), |_| Err::<(), _>(HandlerError::skip())).expect("a subscription");
    let id = broker.publish(event("dead.it")).expect("it is accepted").id;
    loopback.wait_until("the lease is settled", |server| {
        server.dead_letters.values().any(|it| it.letter.reason == DeadReason::Exhausted && it.letter.attempts == 4)
    });
    let letters = broker.dead_letters(&DeadLetterFilter::default()).expect("the back end answers");
    assert_eq!((letters.len(), letters[0].event.id(), letters[0].attempts), (1, &id, 4));
    assert_eq!(letters[0].errors[3].message, "never");
    broker.publish(event("skipped.it")).expect("it is accepted");
    loopback.wait_until("the lease is settled", |server| server.done("skips") == 1);
    finish(&broker);
}

#[test]
fn local_subscriptions_have_no_lease() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let gate = Gate::closed();
    let calls = listen(&broker, local("here", "local.*"), &gate);
    let id = broker.publish(event("local.it")).expect("it is accepted").id;
    assert_eq!(next(&calls), id);
    assert_eq!(loopback.look(|server| (server.leased(), server.queues.len())), (0, 0));
    gate.open();
    finish(&broker);
    assert_eq!(loopback.look(|server| server.settlements.len()), 0);
    assert_eq!(loopback.status(&id), Some(Status::Completed));
}

#[test]
fn what_is_published_after_subscribe_arrives() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let other = self::broker(&loopback);
    for round in 0..20 {
        let event_type = format!("at.once{round}");
        let calls = listen(&broker, named(&event_type, &event_type), &open_gate());
        let id = other.publish(event(&event_type)).expect("it is accepted").id;
        assert_eq!(next(&calls), id);
    }
    finish(&broker);
    finish(&other);
}

/// So long nothing happens while the back end has not answered to a registration.
const A_WHILE: Duration = Duration::from_millis(100);

#[test]
fn subscribe_waits_until_the_back_end_knows() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    loopback.hold_registrations(true);
    let (sender, subscribed) = channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let calls = listen(&broker, named("known", "known.*"), &open_gate());
            sender.send(calls).expect("the test waits");
        });
        assert!(subscribed.recv_timeout(A_WHILE).is_err(), "it returned before the back end knew");
        loopback.hold_registrations(false);
        let calls = subscribed.recv_timeout(PATIENCE).expect("it returns");
        let id = broker.publish(event("known.it")).expect("it is accepted").id;
        assert_eq!(next(&calls), id);
    });
    finish(&broker);
}

#[test]
fn start_waits_until_the_back_end_knows_the_subscriptions_made_before() {
    let loopback = Loopback::new();
    let broker = Broker::builder().provider(loopback.provider()).build().expect("valid settings");
    let all: Vec<_> = (0..20).map(|it| listen(&broker, named(&format!("s{it}"), "early.*"), &open_gate())).collect();
    loopback.hold_registrations(true);
    let (sender, started) = channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            broker.start().expect("it starts");
            sender.send(()).expect("the test waits");
        });
        assert!(started.recv_timeout(A_WHILE).is_err(), "it returned before the back end knew");
        loopback.hold_registrations(false);
        started.recv_timeout(PATIENCE).expect("it returns");
    });
    let id = broker.publish(event("early.it")).expect("it is accepted").id;
    for calls in &all {
        assert_eq!(next(calls), id);
    }
    finish(&broker);
}

#[test]
fn unnamed_subscriptions_are_known_by_their_pattern() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    for pattern in ["a.*", "b.*"] {
        one.subscribe(pattern, |_| ()).expect("a subscription");
    }
    for pattern in ["b.*", "a.*"] {
        two.subscribe(pattern, |_| ()).expect("a subscription");
    }
    let members = loopback.look(|server| server.queues.values().map(|it| it.members.len()).collect::<Vec<_>>());
    assert_eq!(members, [2, 2], "each pattern is one subscription with two members");
    let error = one.subscribe("a.*", |_| ()).expect_err("it would be the same subscription twice");
    assert!(matches!(error, SubscribeError::NameTaken { .. }), "{error}");
    finish(&one);
    finish(&two);
}

#[test]
fn a_name_that_means_another_pattern_is_refused() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    let calls = listen(&one, named("mail", "order.*"), &open_gate());
    let error = two.subscribe_with(named("mail", "user.*"), |_| ()).expect_err("it has another pattern");
    assert!(matches!(error, SubscribeError::Refused { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("order.*") && text.contains("user.*") && text.contains("loopback"), "{text}");
    assert_eq!(two.stats().subscriptions, []);
    listen(&two, named("mail", "order.*"), &open_gate());
    let id = one.publish(event("order.it")).expect("it is accepted").id;
    loopback.wait_until("it is handled", |server| server.done("mail") == 1);
    finish(&one);
    finish(&two);
    assert!(calls.try_iter().all(|call| call == id));
}

#[test]
fn two_brokers_of_a_group_handle_each_event_once() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    let gate = Gate::closed();
    let options = || named("shared", "group.*").concurrency(1).queue_capacity(5);
    let (at_one, at_two) = (listen(&one, options(), &gate), listen(&two, options(), &gate));
    let ids: BTreeSet<EventId> = (0..200).map(|it| one.publish(numbered("group.it", it)).expect("room").id).collect();
    // Neither can take all.
    let mut handled = vec![next(&at_one), next(&at_two)];
    gate.open();
    loopback.wait_until("all are settled", |server| server.done("shared") == 200);
    handled.extend(at_one.try_iter().chain(at_two.try_iter()));
    assert_eq!(handled.len(), 200, "none is handled twice");
    assert_eq!(handled.into_iter().collect::<BTreeSet<_>>(), ids);
    let ingested = bridge_stats(&one).ingested + bridge_stats(&two).ingested;
    assert_eq!((bridge_stats(&one).mirrored, bridge_stats(&two).mirrored, ingested), (200, 0, 200));
    finish(&one);
    finish(&two);
}

#[test]
fn what_the_back_end_cannot_do_is_refused_at_subscribe() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let error = broker
        .subscribe_with(named("wide", "wide.*").scope(Scope::Broadcast), |_| ())
        .expect_err("the loopback offers no broadcast");
    assert_eq!(error, SubscribeError::Unsupported { provider: "loopback".to_owned(), feature: "broadcast" });
    assert_eq!(broker.stats().subscriptions, []);
    assert_eq!(loopback.look(|server| server.queues.len()), 0);
    finish(&broker);
}

#[test]
fn no_more_is_claimed_than_there_is_room_for_and_a_full_subscription_holds_up_no_other() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let gate = Gate::closed();
    let full = listen(&broker, named("full", "room.*").concurrency(1).queue_capacity(2), &gate);
    let quick = listen(&broker, named("quick", "room.*"), &open_gate());
    let ids: BTreeSet<EventId> = (0..10).map(|it| broker.publish(numbered("room.it", it)).expect("room").id).collect();
    next(&full);
    loopback.wait_until("the room is used", |server| server.queues["full"].leased == 3);
    assert_eq!((0..10).map(|_| next(&quick)).collect::<BTreeSet<_>>(), ids);
    broker.publish(numbered("room.last", 0)).expect("it waits at the back end, not here");
    next(&quick);
    assert_eq!(loopback.look(|server| server.queues["full"].most_leased), 3, "one runs, two are queued");
    gate.open();
    loopback.wait_until("all are settled", |server| server.done("full") == 11);
    assert_eq!(loopback.look(|server| server.released("full")), 0, "nothing was claimed in vain");
    finish(&broker);
}

#[test]
fn a_subscription_whose_retries_fill_it_claims_nothing() {
    let loopback = Loopback::without_deferred_retries();
    let broker = broker(&loopback);
    let hour = RetryPolicy::fixed(1, Duration::from_secs(3600));
    let (sender, calls) = channel();
    let options = named("waits", "retry.*").max_waiting(3).retry(hour);
    broker
        .subscribe_with(options, move |delivery| {
            // As in `listen`.
            let _ = sender.send(delivery.event().id().clone());
            Err::<(), _>("later")
        })
        .expect("a subscription");
    let quick = listen(&broker, named("quick", "retry.*"), &open_gate());
    for number in 0..3 {
        broker.publish(numbered("retry.it", number)).expect("it is accepted");
        next(&calls);
    }
    loopback.wait_until("the others are settled", |server| server.done("quick") == 3);
    wait_until("all three wait for a retry", || waiting(&broker, "waits") == 3);
    // A call that was under way when it became full may have asked for more.
    loopback.wait_until("it asks for no more", |server| server.queues["waits"].asked_by.is_empty());
    for number in 3..13 {
        broker.publish(numbered("retry.it", number)).expect("it is accepted");
    }
    (0..13).for_each(|_| drop(next(&quick)));
    assert_eq!(loopback.look(|server| server.released("waits")), 0, "nothing is claimed in vain");
    assert_eq!(loopback.look(|server| server.queues["waits"].leased), 3);
    broker.stop(Duration::ZERO);
}

fn waiting(broker: &Broker, name: &str) -> u64 {
    broker.stats().subscriptions.iter().find(|it| &*it.name == name).expect("it is there").waiting
}

#[test]
fn leases_are_extended_while_a_handler_runs() {
    let loopback = Loopback::new();
    // The heartbeat is a third of it; the rest is for a busy machine.
    loopback.set_lease_time(Duration::from_secs(3));
    let (one, two) = (broker(&loopback), broker(&loopback));
    let gate = Gate::closed();
    let at_one = listen(&one, named("slow", "slow.*"), &gate);
    one.publish(event("slow.it")).expect("it is accepted");
    next(&at_one);
    let at_two = listen(&two, named("slow", "slow.*"), &open_gate());
    loopback.wait_until("the lease was extended beyond its first end", |server| server.extensions >= 4);
    gate.open();
    loopback.wait_until("it is settled", |server| server.done("slow") == 1);
    finish(&one);
    finish(&two);
    assert_eq!(at_one.try_iter().chain(at_two.try_iter()).count(), 0, "it was handled once");
}

#[test]
fn a_lease_that_was_lost_is_another_members_affair() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    let gate = Gate::closed();
    let at_one = listen(&one, named("lost", "lost.*").concurrency(1).queue_capacity(1), &gate);
    let id = one.publish(event("lost.it")).expect("it is accepted").id;
    next(&at_one);
    // No more room at the first.
    one.publish(event("lost.filler")).expect("it is accepted");
    loopback.wait_until("both are leased", |server| server.queues["lost"].leased == 2);
    let at_two = listen(&two, named("lost", "lost.*").concurrency(1), &open_gate());
    loopback.expire_leases();
    assert_eq!(next(&at_two), id, "the oldest comes first");
    loopback.wait_until("the other member settles both", |server| server.done("lost") == 2);
    gate.open();
    finish(&one);
    finish(&two);
    assert_eq!(loopback.look(|server| server.settlements.len()), 2, "what was lost is not settled again");
    assert_eq!(loopback.status(&id), Some(Status::Completed));
}

#[test]
fn unsubscribe_gives_back_what_has_not_started() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    let gate = Gate::closed();
    let (sender, at_one) = channel();
    let held = gate.clone();
    let options = named("leaves", "leave.*").concurrency(1);
    let subscription = one
        .subscribe_with(options, move |delivery| {
            // As in `listen`.
            let _ = sender.send(delivery.event().id().clone());
            held.pass();
        })
        .expect("a subscription");
    let ids: Vec<EventId> = (0..6).map(|it| one.publish(numbered("leave.it", it)).expect("room").id).collect();
    let first = next(&at_one);
    loopback.wait_until("all are leased", |server| server.leased() == 6);
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(one.unsubscribe(subscription), Ok(0)));
        loopback.wait_until("five came back", |server| server.released("leaves") == 5);
        loopback.wait_until("it has left", |server| server.queues["leaves"].members.is_empty());
        for id in ids.iter().filter(|id| **id != first) {
            assert_eq!(loopback.status(id), Some(Status::Pending), "it is not handled yet");
        }
        gate.open();
    });
    let at_two = listen(&two, named("leaves", "leave.*"), &open_gate());
    let mut handled: Vec<EventId> = (0..5).map(|_| next(&at_two)).collect();
    loopback.wait_until("all are handled", |server| server.done("leaves") == 6);
    handled.push(first);
    assert_eq!(handled.into_iter().collect::<BTreeSet<_>>(), ids.into_iter().collect());
    finish(&one);
    finish(&two);
}

#[test]
fn stop_gives_back_what_has_not_started_and_says_so() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    let (sender, at_one) = channel();
    one.subscribe_with(named("stops", "stop.*").concurrency(1), move |delivery| {
        // As in `listen`.
        let _ = sender.send(delivery.event().id().clone());
        let deadline = Instant::now() + PATIENCE;
        while !delivery.cancelled() && Instant::now() < deadline {
            thread::park_timeout(Duration::from_millis(1));
        }
    })
    .expect("a subscription");
    let ids: Vec<EventId> = (0..300).map(|it| one.publish(numbered("stop.it", it)).expect("room").id).collect();
    let first = next(&at_one);
    loopback.wait_until("all are leased", |server| server.leased() == 300);
    let report = one.stop(Duration::ZERO);
    assert_eq!((report.finished, report.threads_left), (true, 0));
    assert_eq!(report.released, 299);
    assert!(report.unflushed.is_empty());
    assert!(report.abandoned.iter().all(|id| *id == first), "what goes back is not lost: {:?}", report.abandoned.len());
    let settled = loopback.look(|server| (server.released("stops"), server.done("stops")));
    assert_eq!(settled, (299, 1), "the handler ended well in time");
    assert!(loopback.look(|server| server.queues["stops"].members.is_empty()));
    for id in ids.iter().filter(|id| **id != first) {
        assert_eq!(loopback.status(id), Some(Status::Pending), "it is not handled yet");
    }
    let at_two = listen(&two, named("stops", "stop.*"), &open_gate());
    let handled: BTreeSet<EventId> = (0..299).map(|_| next(&at_two)).collect();
    assert_eq!(handled, ids.into_iter().filter(|id| *id != first).collect());
    finish(&two);
    assert_eq!(loopback.look(|server| server.done("stops")), 300);
}

#[test]
fn a_clean_stop_leaves_nothing_unsettled() {
    for _ in 0..5 {
        let loopback = Loopback::new();
        let broker = broker(&loopback);
        let calls = listen(&broker, named("clean", "clean.*"), &open_gate());
        let ids: Vec<EventId> = (0..50).map(|it| broker.publish(numbered("clean.it", it)).expect("room").id).collect();
        next(&calls);
        let report = broker.stop(PATIENCE);
        assert!(report.is_clean(), "{report:?}");
        assert_eq!(report.released, 0);
        let handled = calls.try_iter().count() + 1;
        let (leased, done) = loopback.look(|server| (server.leased(), server.done("clean")));
        assert_eq!((leased, done), (0, handled));
        let completed = ids.iter().filter(|id| loopback.status(id) == Some(Status::Completed)).count();
        assert_eq!(completed, handled, "every status has reached the back end");
    }
}

#[test]
fn stop_reports_what_the_back_end_did_not_confirm() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    loopback.set_unavailable(true);
    let sent: Vec<Event> = (0..600).map(|it| numbered("unflushed.it", it)).collect();
    let receipts: Vec<_> = sent.iter().map(|it| broker.publish_async(it.clone()).expect("there is room")).collect();
    loopback.wait_until("it was tried", |server| server.failures >= 2);
    let report = broker.stop(Duration::from_millis(20));
    assert_eq!((report.finished, report.threads_left, report.is_clean()), (true, 0, false));
    assert_eq!(ids_of(&report.unflushed), ids_of(&sent));
    for receipt in &receipts {
        assert_eq!(receipt.wait(Duration::ZERO).expect_err("nobody knows").code(), "unknown");
    }
    assert_eq!(broker.stop(PATIENCE), report);
}

fn ids_of(events: &[Event]) -> BTreeSet<EventId> {
    events.iter().map(|event| event.id().clone()).collect()
}

#[test]
fn stop_does_not_wait_for_a_back_end_that_hangs() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    loopback.hold_sends(true);
    let sent: Vec<Event> = (0..600).map(|it| numbered("hang.it", it)).collect();
    let receipts: Vec<_> = sent.iter().map(|it| broker.publish_async(it.clone()).expect("there is room")).collect();
    loopback.wait_until("it is being sent", |server| server.sends == 1);
    let report = broker.stop(Duration::from_millis(20));
    assert!(report.finished);
    assert_eq!(report.threads_left, 1);
    assert_eq!(ids_of(&report.unflushed), ids_of(&sent), "those in the call, and those behind them");
    loopback.hold_sends(false);
    for receipt in &receipts {
        // The back end may have taken the first batch after all.
        if let Err(error) = receipt.wait(PATIENCE) {
            assert_eq!(error.code(), "unknown");
        }
    }
}

#[test]
fn get_and_list_ask_the_back_end() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    let sent: Vec<Event> = (0..10).map(|it| numbered("look.it", it)).collect();
    for event in &sent {
        one.publish(event.clone()).expect("it is accepted");
    }
    for event in &sent {
        let found = two.get(event.id()).expect("it answers").expect("the other has published it");
        assert_eq!((found.id(), found.payload()), (event.id(), event.payload()));
    }
    let page = two.list(&Filter { limit: Some(7), ..Filter::default() }).expect("it answers");
    assert_eq!((page.events.len(), page.next.is_some()), (7, true));
    let rest = two.list(&Filter { after: page.next, ..Filter::default() }).expect("it answers");
    assert_eq!((rest.events.len(), rest.next), (3, None));
    assert_eq!(ids_of(&[page.events, rest.events].concat()), ids_of(&sent));
    loopback.set_unavailable(true);
    two.list(&Filter::default()).expect_err("it is away");
    two.get(event("look.other").id()).expect_err("it is away");
    loopback.set_unavailable(false);
    finish(&one);
    finish(&two);
}

#[test]
fn final_statuses_reach_the_back_end() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    two.subscribe_with(named("mixed", "status.*"), |delivery| match delivery.event().event_type().as_str() {
        "status.bad" => Err(HandlerError::permanent("it broke")),
        _ => Ok(()),
    })
    .expect("a subscription");
    let good = one.publish(event("status.good")).expect("it is accepted").id;
    let bad = one.publish(event("status.bad")).expect("it is accepted").id;
    loopback.wait_until("the good one is completed", |server| server.events[&good].status() == Status::Completed);
    loopback.wait_until("the bad one is failed", |server| server.events[&bad].status() == Status::Failed);
    let failed = one.get(&bad).expect("it answers").expect("it is known");
    assert_eq!((failed.status(), failed.error()), (Status::Failed, Some("it broke")), "the publisher sees it, too");
    let unheard = one.publish(event("nobody.listens")).expect("it is accepted").id;
    finish(&one);
    finish(&two);
    assert_eq!(loopback.status(&unheard), Some(Status::Completed));
}

#[test]
fn verdicts_of_local_subscriptions_reach_the_back_end() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let gate = Gate::closed();
    let held = gate.clone();
    broker
        .subscribe_with(local("here", "told.*"), move |_| {
            held.pass();
            Err::<(), _>(HandlerError::permanent("it broke"))
        })
        .expect("a subscription");
    let id = broker.publish(event("told.it")).expect("it is accepted").id;
    loopback.wait_until("it is processing", |server| server.events[&id].status() == Status::Processing);
    gate.open();
    finish(&broker);
    let failed = loopback.look(|server| server.events[&id].clone());
    assert_eq!((failed.status(), failed.error()), (Status::Failed, Some("it broke")));
}

#[test]
fn statuses_and_verdicts_survive_an_outage() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let gate = Gate::closed();
    let calls = listen(&broker, named("shared", "outage.*").concurrency(20), &gate);
    let ids: Vec<EventId> = (0..20).map(|it| broker.publish(numbered("outage.it", it)).expect("room").id).collect();
    loopback.wait_until("all are leased", |server| server.leased() == 20);
    next(&calls);
    listen(&broker, local("here", "near.it"), &gate);
    let near = broker.publish(event("near.it")).expect("it is accepted").id;
    loopback.wait_until("it is processing", |server| server.events[&near].status() == Status::Processing);
    loopback.set_unavailable(true);
    gate.open();
    let (errors, failures) = (bridge_stats(&broker).errors, loopback.look(|server| server.failures));
    wait_until("all are handled here", || broker.stats().deliveries.done == 21);
    loopback.wait_until("telling it has failed", |server| server.failures > failures + 4);
    assert!(bridge_stats(&broker).errors > errors);
    assert_eq!(loopback.look(|server| server.settlements.len()), 0);
    loopback.set_unavailable(false);
    let back = Instant::now();
    loopback.wait_until("all are settled", |server| server.done("shared") == 20);
    loopback.wait_until("all are completed", |server| {
        ids.iter().chain([&near]).all(|id| server.events[id].status() == Status::Completed)
    });
    assert!(back.elapsed() < RECOVERY, "it took {:?}", back.elapsed());
    finish(&broker);
}

#[test]
fn a_subscription_made_during_an_outage_is_registered_afterwards() {
    let loopback = Loopback::new();
    let broker = Arc::new(broker(&loopback));
    let other = self::broker(&loopback);
    loopback.set_unavailable(true);
    let failures = loopback.look(|server| server.failures);
    let subscriber = Arc::clone(&broker);
    let made = thread::spawn(move || listen(&subscriber, named("patient", "patient.*"), &open_gate()));
    loopback.wait_until("registering has failed", |server| server.failures > failures + 1);
    loopback.set_unavailable(false);
    loopback.wait_until("it is registered", |server| server.queues.contains_key("patient"));
    let calls = made.join().expect("no panic");
    let id = other.publish(event("patient.it")).expect("it is accepted").id;
    assert_eq!(next(&calls), id);
    finish(&broker);
    finish(&other);
}

#[test]
fn stats_count_what_went_out_and_came_in() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    assert_eq!(bridge_stats(&broker), eventbroker::stats::BridgeStats::default());
    let calls = listen(&broker, named("shared", "count.yes"), &open_gate());
    for number in 0..10 {
        broker.publish(numbered("count.yes", number)).expect("it is accepted");
        broker.publish(numbered("count.no", number)).expect("it is accepted");
    }
    (0..10).for_each(|_| drop(next(&calls)));
    finish(&broker);
    let stats = bridge_stats(&broker);
    assert_eq!((stats.mirrored, stats.mirror_backlog, stats.ingested), (20, 0, 10));
    assert_eq!((stats.errors, stats.last_error), (0, None));
    let totals = broker.stats();
    assert_eq!(
        (totals.accepted, totals.completed, totals.in_flight),
        (20, 20, 0),
        "an event that came back counts once"
    );
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
                broker.publish(sent).expect("it is accepted");
            });
        }
    });
    assert_eq!(next(&calls), *sent.id());
    brokers.iter().for_each(finish);
    assert_eq!(calls.try_iter().count(), 0);
    assert_eq!(loopback.look(|server| server.settlements.len()), 1);
}
