//! Unsubscribe and stop with a back end: leases of deliveries that have not begun are released, and the report lists
//! unsent events.

use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Event, EventId, Status};
use eventbroker_conformance::loopback::Loopback;

use super::loopback::{broker, finish, ids_of, named, next};
use crate::support::{Gate, PATIENCE, listen, numbered, open_gate};

#[test]
fn unsubscribe_releases_deliveries_that_have_not_begun() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    let gate = Gate::closed();
    let (sender, at_one) = channel();
    let held = gate.clone();
    let options = named("leaves", "leave.*").concurrency(1);
    let subscription = one
        .subscribe_with(options, move |delivery| {
            // The receiver is gone when the test has received enough.
            let _ = sender.send(delivery.event().id().clone());
            held.pass();
        })
        .expect("a subscription");
    let ids: Vec<EventId> = (0..6).map(|it| one.publish(numbered("leave.it", it)).expect("room").id).collect();
    let first = next(&at_one);
    loopback.wait_until("all are leased", |server| server.leased() == 6);
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(one.unsubscribe(subscription), Ok(0)));
        loopback.wait_until("five are released", |server| server.released("leaves") == 5);
        loopback.wait_until("the member has left", |server| server.queues["leaves"].members.is_empty());
        for id in ids.iter().filter(|id| **id != first) {
            assert_eq!(loopback.status(id), Some(Status::Pending), "a released event is not handled yet");
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
fn stop_releases_and_counts_deliveries_that_have_not_begun() {
    let loopback = Loopback::new();
    let (one, two) = (broker(&loopback), broker(&loopback));
    let (sender, at_one) = channel();
    one.subscribe_with(named("stops", "stop.*").concurrency(1), move |delivery| {
        // The receiver is gone when the test has received enough.
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
    assert!(
        report.abandoned.iter().all(|id| *id == first),
        "released events are not abandoned: {:?}",
        report.abandoned.len()
    );
    let settled = loopback.inspect(|server| (server.released("stops"), server.done("stops")));
    assert_eq!(settled, (299, 1), "the running call ended in time");
    assert!(loopback.inspect(|server| server.queues["stops"].members.is_empty()));
    for id in ids.iter().filter(|id| **id != first) {
        assert_eq!(loopback.status(id), Some(Status::Pending), "a released event is not handled yet");
    }
    let at_two = listen(&two, named("stops", "stop.*"), &open_gate());
    let handled: BTreeSet<EventId> = (0..299).map(|_| next(&at_two)).collect();
    assert_eq!(handled, ids.into_iter().filter(|id| *id != first).collect());
    finish(&two);
    assert_eq!(loopback.inspect(|server| server.done("stops")), 300);
}

#[test]
fn a_clean_stop_settles_every_lease() {
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
        let (leased, done) = loopback.inspect(|server| (server.leased(), server.done("clean")));
        assert_eq!((leased, done), (0, handled));
        let completed = ids.iter().filter(|id| loopback.status(id) == Some(Status::Completed)).count();
        assert_eq!(completed, handled, "every status has reached the back end");
    }
}

#[test]
fn stop_reports_events_that_the_back_end_did_not_confirm() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    loopback.set_unavailable(true);
    let sent: Vec<Event> = (0..600).map(|it| numbered("unflushed.it", it)).collect();
    let receipts: Vec<_> = sent.iter().map(|it| broker.publish_async(it.clone()).expect("accepted")).collect();
    loopback.wait_until("a send was attempted", |server| server.failures >= 2);
    let report = broker.stop(Duration::from_millis(20));
    assert_eq!((report.finished, report.threads_left, report.is_clean()), (true, 0, false));
    assert_eq!(ids_of(&report.unflushed), ids_of(&sent));
    for receipt in &receipts {
        assert_eq!(receipt.wait(Duration::ZERO).expect_err("no response").code(), "unknown");
    }
    assert_eq!(broker.stop(PATIENCE), report);
}

#[test]
fn stop_does_not_wait_for_a_back_end_that_hangs() {
    let loopback = Loopback::new();
    let broker = broker(&loopback);
    loopback.hold_sends(true);
    let sent: Vec<Event> = (0..600).map(|it| numbered("hang.it", it)).collect();
    let receipts: Vec<_> = sent.iter().map(|it| broker.publish_async(it.clone()).expect("accepted")).collect();
    loopback.wait_until("the batch is being sent", |server| server.sends == 1);
    let report = broker.stop(Duration::from_millis(20));
    assert!(report.finished);
    assert_eq!(report.threads_left, 1);
    assert_eq!(ids_of(&report.unflushed), ids_of(&sent), "the events of the hanging call, and those behind them");
    loopback.hold_sends(false);
    for receipt in &receipts {
        // The back end may have stored the first batch after all.
        if let Err(error) = receipt.wait(PATIENCE) {
            assert_eq!(error.code(), "unknown");
        }
    }
}
