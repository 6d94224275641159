//! The global broker: initialised once, disabled, replaced after a shutdown. A process of its own, which has one global
//! broker.

#[path = "it/support.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::sync::mpsc::channel;
use std::time::Duration;

use eventbroker::error::{PublishError, StartError, SubscribeError};
use eventbroker::global::{self, InitError};
use eventbroker::{Broker, Event, SubscribeOptions};
use parking_lot::{Mutex, MutexGuard};
use support::{PATIENCE, event, in_time, receive};

/// Serialises these tests, and shuts the global broker of the previous one down.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock();
    global::shutdown(PATIENCE);
    alone
}

fn named(name: &str) -> eventbroker::BrokerBuilder {
    Broker::builder().worker_count(1).instance_id(name)
}

fn assert_returned(error: PublishError, code: &str, id: &Event) {
    assert_eq!((error.code(), error.into_event().id()), (code, id.id()));
}

#[test]
fn every_function_reaches_the_global_broker() {
    let _alone = alone();
    global::init(named("here")).expect("no global broker yet");
    let (sender, receiver) = channel();
    let forward = sender;
    let id = global::subscribe("a", move |it| forward.send(it.event().id().clone()).expect("the test listens"))
        .expect("subscribed");
    global::subscribe_with(SubscribeOptions::new("b").name("second"), |_| ()).expect("subscribed");
    for publish in [
        |event| global::publish(event).map(drop),
        |event| global::publish_sync(event).map(drop),
        |event| global::publish_async(event).map(drop),
    ] {
        let event = event("a");
        publish(event.clone()).expect("accepted");
        assert_eq!(receive(&receiver, "the event"), *event.id());
    }
    let stats = global::stats().expect("a global broker");
    assert_eq!((&*stats.instance_id, stats.accepted, stats.subscriptions.len()), ("here", 3, 2));
    assert_eq!(global::unsubscribe(id), Ok(0));
    assert!(global::unsubscribe(id).is_err());
    let handle = global::get().expect("a global broker");
    assert!(global::shutdown(PATIENCE).expect("a global broker").is_clean());
    assert!(matches!(handle.publish(event("a")), Err(PublishError::NotRunning { .. })));
}

#[test]
fn without_a_global_broker_publish_returns_the_event_and_subscribe_fails() {
    let _alone = alone();
    let event = event("a");
    assert_returned(global::publish(event.clone()).expect_err("no global broker"), "not_running", &event);
    assert_returned(global::publish_sync(event.clone()).expect_err("no global broker"), "not_running", &event);
    assert_returned(global::publish_async(event.clone()).expect_err("no global broker"), "not_running", &event);
    assert_eq!(global::subscribe("a", |_| ()), Err(SubscribeError::NotInitialised));
    assert!(global::get().is_none() && global::stats().is_none());
    assert_eq!(global::shutdown(PATIENCE), None);
}

#[test]
fn a_disabled_global_broker_refuses_everything_until_shutdown() {
    let _alone = alone();
    global::disable().expect("no global broker yet");
    let event = event("a");
    assert_returned(global::publish(event.clone()).expect_err("no global broker"), "disabled", &event);
    assert_eq!(global::subscribe("a", |_| ()), Err(SubscribeError::Disabled));
    assert_eq!(global::init(named("late")), Err(InitError::AlreadyInitialised));
    assert_eq!(global::shutdown(PATIENCE), None);
    global::init(named("now")).expect("no global broker yet");
    assert_eq!(global::disable(), Err(InitError::AlreadyInitialised));
    assert_eq!(global::get().expect("the first broker stays").instance_id(), "now");
    global::shutdown(PATIENCE);
}

#[test]
fn initialising_twice_keeps_the_first_broker_and_builds_no_second() {
    let _alone = alone();
    global::init(named("first")).expect("no global broker yet");
    assert_eq!(global::init(named("second")), Err(InitError::AlreadyInitialised));
    assert_eq!(global::set(named("third").start().expect("a running broker")), Err(InitError::AlreadyInitialised));
    let made = global::init_with(|| -> Result<Broker, InitError> { panic!("the closure must not run") });
    assert_eq!(made, Err(InitError::AlreadyInitialised));
    assert_eq!(global::get().expect("the first broker stays").instance_id(), "first");
    global::shutdown(PATIENCE);
}

#[test]
fn one_of_many_concurrent_initialisations_succeeds() {
    let _alone = alone();
    let succeeded = std::thread::scope(|scope| {
        let tries: Vec<_> =
            (0..8).map(|it| scope.spawn(move || global::init(named(&it.to_string())).is_ok())).collect();
        tries.into_iter().filter_map(|it| it.join().ok()).filter(|it| *it).count()
    });
    assert_eq!(succeeded, 1);
    global::shutdown(PATIENCE);
}

#[test]
fn a_broker_that_cannot_start_leaves_no_global_broker() {
    let _alone = alone();
    let error = global::init(Broker::builder().worker_count(0)).expect_err("no workers");
    assert!(matches!(error, InitError::Start(StartError::Invalid(_))), "{error}");
    global::init(named("good")).expect("still no global broker");
    global::shutdown(PATIENCE);
}

#[test]
fn another_broker_can_be_initialised_after_a_shutdown() {
    let _alone = alone();
    for name in ["first", "second"] {
        global::init(named(name)).expect("no global broker yet");
        assert_eq!(global::get().expect("a global broker").instance_id(), name);
        assert!(global::publish(event("a")).is_ok());
        assert!(global::shutdown(PATIENCE).expect("a global broker").is_clean());
    }
}

#[test]
fn a_handler_can_use_the_global_broker_and_shut_it_down() {
    let _alone = alone();
    global::init(named("here")).expect("no global broker yet");
    let (sender, receiver) = channel();
    let done = sender;
    global::subscribe("first", |_| global::publish(event("second")).map(drop)).expect("subscribed");
    global::subscribe("second", move |_| {
        let report = global::shutdown(Duration::from_secs(1)).expect("a global broker");
        done.send(report.finished).expect("the test listens");
    })
    .expect("subscribed");
    global::publish(event("first")).expect("accepted");
    assert!(!receive(&receiver, "the handler's shutdown"), "inside a handler the stop only begins");
    assert!(global::get().is_none());
}

#[test]
fn scopes_wait_for_each_other_and_restore_the_previous_state() {
    let _alone = alone();
    global::disable().expect("no global broker yet");
    let scope = global::scope(named("scoped").start().expect("a running broker"));
    let inside = global::get().expect("a global broker");
    assert_eq!(inside.instance_id(), "scoped");
    let (sender, receiver) = channel();
    let other = std::thread::spawn(move || {
        let _scope = global::scope(named("other").start().expect("a running broker"));
        sender.send(global::get().expect("a global broker").instance_id().to_owned()).expect("the test listens");
    });
    assert_eq!(global::get().expect("the scope's broker stays").instance_id(), "scoped");
    drop(scope);
    assert_eq!(receive(&receiver, "the other scope"), "other");
    in_time("the other scope's end", move || other.join().expect("no panic"));
    assert!(
        matches!(inside.publish(event("a")), Err(PublishError::NotRunning { .. })),
        "the scope's end stopped its broker"
    );
    assert!(
        matches!(global::publish(event("a")), Err(PublishError::Disabled { .. })),
        "the end of the scope restores the disabled state"
    );
}
