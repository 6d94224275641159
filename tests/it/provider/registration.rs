//! Registration of subscriptions at a back end.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use eventbroker::error::SubscribeError;
use eventbroker::{Broker, Scope};
use eventbroker_conformance::loopback::Loopback;

use super::loopback::{broker, finish, named, next};
use crate::support::{PATIENCE, event, listen, open_gate};

/// How long a test checks that a call does not return before the back end has confirmed the registration.
const A_WHILE: Duration = Duration::from_millis(100);

#[test]
fn subscribe_waits_for_the_registration_at_the_back_end() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    loopback.hold_registrations(true);
    let (sender, subscribed) = channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            let calls = listen(&broker, named("known", "known.*"), &open_gate());
            sender.send(calls).expect("the test waits");
        });
        assert!(subscribed.recv_timeout(A_WHILE).is_err(), "returned before the registration");
        loopback.hold_registrations(false);
        let calls = subscribed.recv_timeout(PATIENCE).expect("returned");
        let id = broker.publish(event("known.it")).expect("accepted").id;
        assert_eq!(next(&calls), id);
    });
    finish(&broker);
}

#[test]
fn start_waits_for_the_registration_of_earlier_subscriptions() {
    let loopback = Loopback::new();
    let broker = Broker::builder().provider(loopback.provider()).build().expect("valid settings");
    let all: Vec<_> = (0..20).map(|it| listen(&broker, named(&format!("s{it}"), "early.*"), &open_gate())).collect();
    loopback.hold_registrations(true);
    let (sender, started) = channel();
    thread::scope(|scope| {
        scope.spawn(|| {
            broker.start().expect("a running broker");
            sender.send(()).expect("the test waits");
        });
        assert!(started.recv_timeout(A_WHILE).is_err(), "returned before the registration");
        loopback.hold_registrations(false);
        started.recv_timeout(PATIENCE).expect("returned");
    });
    let id = broker.publish(event("early.it")).expect("accepted").id;
    for calls in &all {
        assert_eq!(next(calls), id);
    }
    finish(&broker);
}

#[test]
fn unnamed_subscriptions_are_registered_under_their_pattern() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    for pattern in ["a.*", "b.*"] {
        one.subscribe(pattern, |_| ()).expect("a subscription");
    }
    for pattern in ["b.*", "a.*"] {
        two.subscribe(pattern, |_| ()).expect("a subscription");
    }
    let members = loopback.inspect(|server| server.queues.values().map(|it| it.members.len()).collect::<Vec<_>>());
    assert_eq!(members, [2, 2], "each pattern is one subscription with two members");
    let error = one.subscribe("a.*", |_| ()).expect_err("the same subscription twice");
    assert!(matches!(error, SubscribeError::NameTaken { .. }), "{error}");
    finish(&one);
    finish(&two);
}

#[test]
fn a_registered_name_with_another_pattern_is_refused() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    let calls = listen(&one, named("mail", "order.*"), &open_gate());
    let error = two.subscribe_with(named("mail", "user.*"), |_| ()).expect_err("another pattern");
    assert!(matches!(error, SubscribeError::Refused { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("order.*") && text.contains("user.*") && text.contains("loopback"), "{text}");
    assert_eq!(two.stats().subscriptions, []);
    listen(&two, named("mail", "order.*"), &open_gate());
    let id = one.publish(event("order.it")).expect("accepted").id;
    loopback.wait_until("the event is handled", |server| server.done("mail") == 1);
    finish(&one);
    finish(&two);
    assert!(calls.try_iter().all(|call| call == id));
}

#[test]
fn options_that_the_back_end_does_not_support_are_refused_at_subscribe() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    let error = broker
        .subscribe_with(named("wide", "wide.*").scope(Scope::Broadcast), |_| ())
        .expect_err("the loopback offers no broadcast");
    assert_eq!(error, SubscribeError::Unsupported { provider: "loopback".to_owned(), feature: "broadcast" });
    assert_eq!(broker.stats().subscriptions, []);
    assert_eq!(loopback.inspect(|server| server.queues.len()), 0);
    finish(&broker);
}

#[test]
fn a_subscription_made_during_an_outage_is_registered_after_it() {
    let loopback = Loopback::new();
    let broker = Arc::new(broker(&loopback));
    let other = self::broker(&loopback);
    loopback.set_unavailable(true);
    let failures = loopback.inspect(|server| server.failures);
    let subscriber = Arc::clone(&broker);
    let made = thread::spawn(move || listen(&subscriber, named("patient", "patient.*"), &open_gate()));
    loopback.wait_until("the registration has failed", |server| server.failures > failures + 1);
    loopback.set_unavailable(false);
    loopback.wait_until("the subscription is registered", |server| server.queues.contains_key("patient"));
    let calls = made.join().expect("no panic");
    let id = other.publish(event("patient.it")).expect("accepted").id;
    assert_eq!(next(&calls), id);
    finish(&broker);
    finish(&other);
}
