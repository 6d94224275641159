//! Inside a handler, `stop` and the drop of the last handle only begin the stop, which then ends by itself.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use eventbroker::{Broker, Event, PublishError, Source, StopReport, SubscribeOptions};
use parking_lot::Mutex;

use crate::support::{Gate, PATIENCE, event, in_time, receive, wait_until};

#[test]
fn a_stop_inside_a_handler_returns_unfinished_and_ends_later() {
    let broker = Broker::builder().worker_count(2).start().expect("valid settings");
    let (sender, reports) = channel();
    let gate = Gate::closed();
    let (pass, handled) = (gate.clone(), Arc::new(AtomicU64::new(0)));
    let count = Arc::clone(&handled);
    broker
        .subscribe_with(SubscribeOptions::new("x").ordered(), move |delivery| {
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                pass.pass();
                let broker = delivery.broker().expect("the broker lives");
                let _ = sender.send((broker.stop(PATIENCE), broker.stop(PATIENCE)));
            }
        })
        .expect("valid");
    (0..20).for_each(|_| drop(broker.publish(event("x")).expect("room")));
    gate.open();
    let (first, second): (StopReport, StopReport) = receive(&reports, "both reports");
    assert_eq!((first.finished, first.is_clean(), second.finished), (false, false, false));
    // A caller outside of handlers waits for the end, and gets the final report.
    let stopper = broker.clone();
    let report = in_time("the report", move || stopper.stop(Duration::ZERO));
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((handled.load(Ordering::SeqCst), report.threads_left), (20, 0));
    assert_eq!(broker.stats().workers, 0);
    assert!(matches!(broker.publish(event("x")), Err(PublishError::NotRunning { .. })));
}

#[test]
fn a_stop_inside_a_handler_on_a_lent_thread_does_not_wait_either() {
    let broker = Broker::builder().start().expect("valid settings");
    broker
        .subscribe("x", |delivery| {
            assert!(!delivery.broker().expect("the broker lives").stop(PATIENCE).finished);
        })
        .expect("valid");
    let report = in_time("publish_sync", {
        let broker = broker.clone();
        move || broker.publish_sync(event("x")).expect("room")
    });
    assert!(report.is_success(), "{report:?}");
    let report = in_time("the report", move || broker.stop(PATIENCE));
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn after_a_stop_with_deadline_zero_inside_a_handler_its_thread_is_the_only_one_left() {
    for _ in 0..5 {
        let broker = Broker::builder().worker_count(2).start().expect("valid settings");
        let gate = Gate::closed();
        let pass = gate.clone();
        broker
            .subscribe("x", move |delivery| {
                let broker = delivery.broker().expect("the broker lives");
                assert!(!broker.stop(Duration::ZERO).finished);
                pass.pass();
            })
            .expect("valid");
        let id = broker.publish(event("x")).expect("room").id;
        gate.wait_for_arrival();
        let stopper = broker.clone();
        let report = in_time("the report", move || stopper.stop(PATIENCE));
        assert_eq!((report.abandoned, report.threads_left), (vec![id], 1));
        gate.open();
        wait_until("its thread ends", || broker.stats().workers == 0);
    }
}

/// Sets a flag when it is dropped.
struct Dropped(Arc<Mutex<bool>>);

impl Drop for Dropped {
    fn drop(&mut self) {
        *self.0.lock() = true;
    }
}

#[test]
fn dropping_the_last_handle_drains_and_ends_all_threads() {
    let broker = Broker::builder().start().expect("valid settings");
    let (handled, released) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(false)));
    let (count, dropped) = (Arc::clone(&handled), Dropped(Arc::clone(&released)));
    broker
        .subscribe("x", move |_| {
            let _keeps = &dropped;
            count.fetch_add(1, Ordering::SeqCst);
        })
        .expect("valid");
    let stream = broker.stream("y").expect("valid");
    (0..500).for_each(|_| drop(broker.publish(event("x")).expect("room")));
    let other = broker.clone();
    drop(broker);
    assert!(other.publish(event("x")).is_ok(), "another handle keeps the broker alive");
    in_time("the drop", move || drop(other));
    assert_eq!(handled.load(Ordering::SeqCst), 501);
    assert_eq!(stream.count(), 0, "the stream has ended");
    wait_until("the handler is dropped", || *released.lock());
}

#[test]
fn the_last_handle_may_be_dropped_inside_a_handler() {
    let broker = Broker::builder().worker_count(2).start().expect("valid settings");
    let (entered, released) = (Gate::closed(), Arc::new(Mutex::new(false)));
    let (pass, dropped) = (entered.clone(), Dropped(Arc::clone(&released)));
    let (sender, seen) = channel();
    broker
        .subscribe("x", move |delivery| {
            let _keeps = &dropped;
            let broker = delivery.broker();
            pass.pass();
            let had_one = broker.is_some();
            // The last handle: its drop begins the stop, and does not wait for this call.
            drop(broker);
            let _ = sender.send((had_one, delivery.broker().is_none()));
        })
        .expect("valid");
    broker.publish(event("x")).expect("room");
    entered.wait_for_arrival();
    drop(broker);
    entered.open();
    assert_eq!(receive(&seen, "the handler's readings"), (true, true));
    wait_until("the handler is dropped", || *released.lock());
}

#[test]
fn a_handler_without_a_handle_of_its_own_does_not_keep_the_broker_alive() {
    let broker = Broker::builder().start().expect("valid settings");
    let marker = Arc::new(());
    let (weak, inside): (Weak<()>, Arc<()>) = (Arc::downgrade(&marker), marker);
    broker
        .subscribe("x", move |delivery| {
            let _keeps = &inside;
            if let Some(broker) = delivery.broker() {
                let event = Event::builder(Source::Internal, "y").build().expect("valid");
                drop(broker.publish(event));
            }
        })
        .expect("valid");
    broker.publish_sync(event("x")).expect("room");
    in_time("the drop", move || drop(broker));
    wait_until("the broker is dropped", || weak.upgrade().is_none());
}

#[test]
fn a_panic_that_unwinds_through_the_owner_stops_the_broker() {
    let handled = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&handled);
    let owner = thread::spawn(move || {
        let broker = Broker::builder().start().expect("valid settings");
        broker
            .subscribe("x", move |_| {
                count.fetch_add(1, Ordering::SeqCst);
            })
            .expect("valid");
        (0..50).for_each(|_| drop(broker.publish(event("x")).expect("room")));
        panic!("the owner fails");
    });
    in_time("the owner", move || owner.join()).expect_err("a panic");
    assert_eq!(handled.load(Ordering::SeqCst), 50);
}
