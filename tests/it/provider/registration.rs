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
