//! Deadlocks of `publish_sync`: a publish that would wait for its own handler is refused before anything runs. Every
//! other nested publish runs.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use eventbroker::{Broker, Config, Delivery, PublishError, RetryPolicy, SubscribeOptions, SyncReport, Verdict};

use crate::support::{Gate, PATIENCE, event, keyed, receive, wait_until};

type Outcome = Result<SyncReport, PublishError>;

fn running() -> Broker {
    Broker::builder().start().expect("a running broker")
}

fn named(pattern: &str, name: &str, concurrency: usize) -> SubscribeOptions {
    SubscribeOptions::new(pattern).name(name).concurrency(concurrency)
}

/// A subscription whose handler publishes an event of type `next` synchronously and sends the result, unless it handles
/// a "leaf".
fn publishes(broker: &Broker, options: SubscribeOptions, next: &'static str, outcomes: &Sender<Outcome>) {
    let outcomes = outcomes.clone();
    let handler = move |delivery: &Delivery<'_>| {
        let broker = delivery.broker().expect("the broker lives");
        outcomes.send(broker.publish_sync(event(next))).expect("received");
    };
    broker.subscribe_with(options, handler).expect("a subscription");
}

/// A subscription whose handler counts its calls.
fn counts(broker: &Broker, options: SubscribeOptions) -> Arc<AtomicU64> {
    let calls = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&calls);
    let count = move |_: &Delivery<'_>| {
        counter.fetch_add(1, Ordering::SeqCst);
    };
    broker.subscribe_with(options, count).expect("a subscription");
    calls
}

fn assert_would_deadlock(outcome: &Outcome, culprit: &str) {
    let Err(refused) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(refused, PublishError::WouldDeadlock { name, .. } if &**name == culprit), "{refused:?}");
    assert_eq!(refused.code(), "would_deadlock");
    assert!(refused.to_string().contains(culprit));
}

#[test]
fn a_publish_to_the_handler_s_own_subscription_is_refused() {
    for (what, options) in [("concurrency 1", named("a.*", "self", 1)), ("ordered", named("a.*", "self", 4).ordered())]
    {
        let broker = running();
        let (sender, outcomes) = channel();
        publishes(&broker, options, "a.nested", &sender);
        let other = counts(&broker, named("a.nested", "other", 1));
        // Once on a worker, once on this thread.
        broker.publish(event("a.first")).expect("accepted");
        let refused = receive(&outcomes, "a refusal");
        assert_would_deadlock(&refused, "self");
        wait_until("the handler has returned", || broker.stats().completed == 1);
        assert!(broker.publish_sync(event("a.first")).expect("accepted").is_success(), "{what}");
        assert_would_deadlock(&receive(&outcomes, "a refusal"), "self");

        assert_eq!(other.load(Ordering::SeqCst), 0, "{what}: no handler has run");
        let nested = refused.expect_err("refused").into_event();
        assert_eq!(nested.event_type().as_str(), "a.nested");
        assert_eq!(broker.get(nested.id()).expect("the memory store"), None);
        let stats = broker.stats();
        assert_eq!((stats.accepted, stats.rejected, stats.completed, stats.attempts), (2, 2, 2, 2), "{what}");
    }
}

#[test]
fn a_deadlock_across_two_subscriptions_is_refused() {
    let broker = running();
    let (sender, outcomes) = channel();
    publishes(&broker, named("a", "first", 1), "b", &sender);
    publishes(&broker, named("b", "second", 1), "a", &sender);
    broker.publish(event("a")).expect("accepted");
    assert_would_deadlock(&receive(&outcomes, "the inner outcome"), "first");
    let outer = receive(&outcomes, "the outer outcome").expect("accepted");
    assert_eq!(outer.settled.iter().map(|it| (&*it.name, it.verdict)).collect::<Vec<_>>(), [("second", Verdict::Done)]);
}

#[test]
fn a_deadlock_across_threads_is_refused() {
    let broker = running();
    let (sender, outcomes) = channel();
    let (gate, threads): (_, Arc<Mutex<Vec<_>>>) = (Gate::closed(), Arc::default());
    publishes(&broker, named("a", "first", 1), "b", &sender);
    // The second subscription is busy when the first publishes to it, so a worker runs the call.
    let (handler_gate, notes, inner) = (gate.clone(), Arc::clone(&threads), sender);
    let second = move |delivery: &Delivery<'_>| {
        if delivery.event().metadata().contains_key("holds") {
            return handler_gate.pass();
        }
        notes.lock().expect("no panic").push(thread::current().id());
        inner.send(delivery.broker().expect("the broker lives").publish_sync(event("a"))).expect("received");
    };
    broker.subscribe_with(named("b", "second", 1), second).expect("a subscription");
    let holding = eventbroker::Event::builder(eventbroker::Source::System, "b").metadata("holds", true).build();
    broker.publish(holding.expect("a valid event")).expect("accepted");
    gate.wait_for_arrival();

    let publisher = broker.clone();
    let first = thread::spawn(move || (thread::current().id(), publisher.publish_sync(event("a")).expect("accepted")));
    wait_until("the event waits for the second subscription", || {
        crate::support::stats_of(&broker, "second").queued == 1
    });
    gate.open();

    assert_would_deadlock(&receive(&outcomes, "the inner outcome"), "first");
    assert!(receive(&outcomes, "the outer outcome").expect("accepted").is_success());
    let (thread, report) = first.join().expect("no panic");
    assert!(report.is_success());
    assert!(!threads.lock().expect("no panic").contains(&thread), "another thread ran the second call");
    assert_eq!((broker.stats().rejected, broker.stats().completed), (1, 3));
}

#[test]
fn a_deadlock_across_brokers_is_refused() {
    let (one, two) = (running(), running());
    let (sender, outcomes) = channel();
    for (from, to, name) in [(&one, &two, "of one"), (&two, &one, "of two")] {
        let (to, sender) = (to.clone(), sender.clone());
        from.subscribe_with(named("*", name, 1), move |_| sender.send(to.publish_sync(event("a"))).expect("received"))
            .expect("a subscription");
    }
    one.publish(event("a")).expect("accepted");
    assert_would_deadlock(&receive(&outcomes, "the inner outcome"), "of one");
    assert!(receive(&outcomes, "the outer outcome").expect("accepted").is_success());
    // Each handler holds a handle of the other broker.
    one.stop(PATIENCE);
    two.stop(PATIENCE);
}

#[test]
fn a_deadlock_through_three_subscriptions_is_refused() {
    let broker = running();
    let (sender, outcomes) = channel();
    publishes(&broker, named("a", "first", 1), "b", &sender);
    publishes(&broker, named("b", "second", 1), "c", &sender);
    publishes(&broker, named("c", "third", 1), "a", &sender);
    broker.publish(event("a")).expect("accepted");
    assert_would_deadlock(&receive(&outcomes, "the innermost outcome"), "first");
    assert!(receive(&outcomes, "the next outcome").expect("accepted").is_success());
    assert!(receive(&outcomes, "the outer outcome").expect("accepted").is_success());
}

#[test]
fn a_free_permit_of_the_handler_s_own_subscription_is_used() {
    let broker = running();
    let (sender, outcomes) = channel();
    let depth = Arc::new(AtomicU64::new(0));
    let (deeper, nested) = (Arc::clone(&depth), sender);
    let handler = move |delivery: &Delivery<'_>| {
        deeper.fetch_add(1, Ordering::SeqCst);
        nested.send(delivery.broker().expect("the broker lives").publish_sync(event("a"))).expect("received");
    };
    broker.subscribe_with(named("*", "self", 3), handler).expect("a subscription");
    broker.publish(event("a")).expect("accepted");
    assert_would_deadlock(&receive(&outcomes, "the third call's outcome"), "self");
    assert!(receive(&outcomes, "the second call's outcome").expect("accepted").is_success());
    assert!(receive(&outcomes, "the first call's outcome").expect("accepted").is_success());
    assert_eq!(depth.load(Ordering::SeqCst), 3);
}

#[test]
fn only_a_publish_of_the_handler_s_own_key_is_refused() {
    let broker = running();
    let (sender, outcomes) = channel();
    let handler = move |delivery: &Delivery<'_>| {
        if delivery.event().event_type().as_str() == "outer" {
            let broker = delivery.broker().expect("the broker lives");
            sender.send(broker.publish_sync(keyed("inner", "k"))).expect("received");
            sender.send(broker.publish_sync(keyed("inner", "l"))).expect("received");
        }
    };
    broker.subscribe_with(named("*", "self", 2), handler).expect("a subscription");
    broker.publish(keyed("outer", "k")).expect("accepted");
    assert_would_deadlock(&receive(&outcomes, "an outcome"), "self");
    assert!(receive(&outcomes, "an outcome").expect("accepted").is_success());
}

#[test]
fn a_publish_to_another_subscription_runs() {
    let broker = running();
    let (sender, outcomes) = channel();
    publishes(&broker, named("a", "outer", 1), "b", &sender);
    let calls = counts(&broker, named("b", "inner", 1));
    for round in 1..=100 {
        assert!(broker.publish_sync(event("a")).expect("accepted").is_success());
        let inner = receive(&outcomes, "the inner report").expect("accepted");
        assert_eq!(inner.settled.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["inner"]);
        assert_eq!(calls.load(Ordering::SeqCst), round);
    }
}

/// A broker whose pool stays at one worker. Its synchronous publishes time out after 5 s.
fn with_one_worker() -> Broker {
    let mut config = Config::default();
    config.worker_count = 1;
    config.max_workers = Some(1);
    config.sync_timeout = Duration::from_secs(5);
    config.retry_policy = RetryPolicy::fixed(3, Duration::ZERO);
    Broker::builder().config(config).start().expect("a running broker")
}

#[test]
fn the_only_worker_runs_the_calls_that_its_handler_waits_for() {
    let broker = with_one_worker();
    let (sender, outcomes) = channel();
    publishes(&broker, named("a", "outer", 1), "b", &sender);
    let calls = [counts(&broker, named("b", "inner 1", 1)), counts(&broker, named("b", "inner 2", 1))];
    broker.publish(event("a")).expect("accepted");
    let inner = receive(&outcomes, "the inner report").expect("accepted");
    assert!(inner.is_success(), "{inner:?}");
    assert!(calls.iter().all(|calls| calls.load(Ordering::SeqCst) == 1));
}

#[test]
fn the_only_worker_runs_the_retries_that_its_handler_waits_for() {
    let broker = with_one_worker();
    let (sender, outcomes) = channel();
    publishes(&broker, named("a", "outer", 1), "b", &sender);
    broker
        .subscribe_with(
            named("b", "inner", 1),
            |delivery| if delivery.attempt() == 1 { Err("not yet") } else { Ok(()) },
        )
        .expect("a subscription");
    broker.publish(event("a")).expect("accepted");
    let inner = receive(&outcomes, "the inner report").expect("accepted");
    assert!(inner.is_success(), "{inner:?}");
}

#[test]
fn an_event_queued_behind_the_handler_s_key_refuses_no_publish_of_another_key() {
    let broker = running();
    let gate = Gate::closed();
    let (sender, outcomes) = channel();
    let handler_gate = gate.clone();
    broker
        .subscribe_with(named("a.*", "keys", 4), move |delivery| {
            if delivery.event().event_type().as_str() == "a.first" {
                handler_gate.pass();
                let broker = delivery.broker().expect("the broker lives");
                sender.send(broker.publish_sync(keyed("a.nested", "other"))).expect("received");
            }
        })
        .expect("a subscription");
    broker.publish(keyed("a.first", "key")).expect("accepted");
    gate.wait_for_arrival();
    gate.open();
    for _ in 0..500 {
        broker.publish(keyed("a.behind", "key")).expect("accepted");
    }
    assert!(receive(&outcomes, "an outcome").expect("accepted").is_success());
    wait_until("all are handled", || broker.stats().completed == 502);
}
