//! The global broker: taken once, disabled, replaced after a shutdown.

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

/// These tests are about the bare place, which they have one after the other, and leave empty.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    let alone = ALONE.lock();
    global::shutdown(PATIENCE);
    alone
}

fn named(name: &str) -> eventbroker::BrokerBuilder {
    Broker::builder().worker_count(1).instance_id(name)
}

fn come_back(error: PublishError, code: &str, id: &Event) {
    assert_eq!((error.code(), error.into_event().id()), (code, id.id()));
}

#[test]
fn every_verb_reaches_the_broker() {
    let _alone = alone();
    global::init(named("here")).expect("the place is empty");
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
    let stats = global::stats().expect("there is a broker");
    assert_eq!((&*stats.instance_id, stats.accepted, stats.subscriptions.len()), ("here", 3, 2));
    assert_eq!(global::unsubscribe(id), Ok(0));
    assert!(global::unsubscribe(id).is_err());
    let handle = global::get().expect("there is a broker");
    assert!(global::shutdown(PATIENCE).expect("there was one").is_clean());
    assert!(matches!(handle.publish(event("a")), Err(PublishError::NotRunning { .. })));
}

#[test]
fn without_a_broker_an_event_comes_back_and_nothing_is_subscribed() {
    let _alone = alone();
    let event = event("a");
    come_back(global::publish(event.clone()).expect_err("nobody holds it"), "not_running", &event);
    come_back(global::publish_sync(event.clone()).expect_err("nobody holds it"), "not_running", &event);
    come_back(global::publish_async(event.clone()).expect_err("nobody holds it"), "not_running", &event);
    assert_eq!(global::subscribe("a", |_| ()), Err(SubscribeError::NotInitialised));
    assert!(global::get().is_none() && global::stats().is_none());
    assert_eq!(global::shutdown(PATIENCE), None);
}

#[test]
fn a_disabled_one_says_so_until_it_is_shut_down() {
    let _alone = alone();
    global::disable().expect("the place is empty");
    let event = event("a");
    come_back(global::publish(event.clone()).expect_err("nobody holds it"), "disabled", &event);
    assert_eq!(global::subscribe("a", |_| ()), Err(SubscribeError::Disabled));
    assert_eq!(global::init(named("late")), Err(InitError::AlreadyInitialised));
    assert_eq!(global::shutdown(PATIENCE), None);
    global::init(named("now")).expect("the place is empty");
    assert_eq!(global::disable(), Err(InitError::AlreadyInitialised));
    assert_eq!(global::get().expect("it stays").instance_id(), "now");
    global::shutdown(PATIENCE);
}

#[test]
fn initialising_twice_is_an_error_that_keeps_the_first_and_makes_no_second() {
    let _alone = alone();
    global::init(named("first")).expect("the place is empty");
    assert_eq!(global::init(named("second")), Err(InitError::AlreadyInitialised));
    assert_eq!(global::set(named("third").start().expect("it starts")), Err(InitError::AlreadyInitialised));
    let made = global::init_with(|| -> Result<Broker, InitError> { panic!("it must not be made") });
    assert_eq!(made, Err(InitError::AlreadyInitialised));
    assert_eq!(global::get().expect("it stays").instance_id(), "first");
    global::shutdown(PATIENCE);
}

#[test]
fn of_many_that_initialise_at_once_one_succeeds() {
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
fn one_that_cannot_start_leaves_the_place_empty() {
    let _alone = alone();
    let error = global::init(Broker::builder().worker_count(0)).expect_err("no workers");
    assert!(matches!(error, InitError::Start(StartError::Invalid(_))), "{error}");
    global::init(named("good")).expect("the place is still empty");
    global::shutdown(PATIENCE);
}

#[test]
fn a_second_one_replaces_it_after_a_shutdown() {
    let _alone = alone();
    for name in ["first", "second"] {
        global::init(named(name)).expect("the place is empty");
        assert_eq!(global::get().expect("it is there").instance_id(), name);
        assert!(global::publish(event("a")).is_ok());
        assert!(global::shutdown(PATIENCE).expect("there was one").is_clean());
    }
}

#[test]
fn a_handler_can_use_it_and_shut_it_down() {
    let _alone = alone();
    global::init(named("here")).expect("the place is empty");
    let (sender, receiver) = channel();
    let done = sender;
    global::subscribe("first", |_| global::publish(event("second")).map(drop)).expect("subscribed");
    global::subscribe("second", move |_| {
        let report = global::shutdown(Duration::from_secs(1)).expect("it was there");
        done.send(report.finished).expect("the test listens");
    })
    .expect("subscribed");
    global::publish(event("first")).expect("accepted");
    assert!(!receive(&receiver, "the handler's shutdown"), "inside a handler it only begins");
    assert!(global::get().is_none());
}

#[test]
fn scopes_of_tests_wait_for_each_other_and_leave_what_was_there() {
    let _alone = alone();
    global::disable().expect("the place is empty");
    let scope = global::scope(named("scoped").start().expect("it starts"));
    let inside = global::get().expect("it is there");
    assert_eq!(inside.instance_id(), "scoped");
    let (sender, receiver) = channel();
    let other = std::thread::spawn(move || {
        let _scope = global::scope(named("other").start().expect("it starts"));
        sender.send(global::get().expect("it is there").instance_id().to_owned()).expect("the test listens");
    });
    assert_eq!(global::get().expect("nobody took the place").instance_id(), "scoped");
    drop(scope);
    assert_eq!(receive(&receiver, "the other scope"), "other");
    in_time("the other scope's end", move || other.join().expect("it ends"));
    assert!(matches!(inside.publish(event("a")), Err(PublishError::NotRunning { .. })), "it was stopped");
    assert!(matches!(global::publish(event("a")), Err(PublishError::Disabled { .. })), "it is disabled as before");
}
