//! A request whose answer is lost may have taken effect, and does not take effect twice. Leases survive an outage, and
//! the loss of an idle connection fails no call.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use eventbroker::query::Filter;
use eventbroker::{Broker, Status, SubscribeOptions};
use eventbroker_conformance::faults;
use eventbroker_conformance::postgres::PASSWORD;
use eventbroker_conformance::proxy::Proxy;
use eventbroker_conformance::watch::{PATIENCE, event, wait_until};
use eventbroker_sql::Postgres;

/// A broker whose connections go through a proxy.
fn start(lease_time: Duration) -> (Broker, Proxy) {
    let server = super::server();
    let url = server.tcp(&server.database(), PASSWORD);
    let proxy = Proxy::to(server.port());
    let url = url.replace(&format!(":{}/", server.port()), &format!(":{}/", proxy.port()));
    let provider = Postgres::new(url).lease_time(lease_time).open().expect("it opens");
    (Broker::builder().provider(provider).start().expect("it starts"), proxy)
}

#[test]
fn a_lost_answer_loses_nothing_and_repeats_nothing() {
    let (broker, proxy) = start(faults::LEASE);
    faults::lost_answers(&broker, &proxy);
}

#[test]
fn the_loss_of_an_idle_connection_fails_no_call() {
    let (broker, proxy) = start(Duration::from_secs(30));
    faults::cut_while_idle(&broker, &proxy);
}

/// No member can extend a lease during the outage, so none counts as dead, and leased deliveries are handled once.
#[test]
fn living_members_keep_their_leases_after_a_long_outage_of_the_server() {
    const EVENTS: usize = 50;
    let lease_time = Duration::from_secs(1);
    let (broker, proxy) = start(lease_time);
    let (gate, passes) = channel::<()>();
    let (passes, calls) = (Mutex::new(passes), Arc::new(AtomicU64::new(0)));
    let called = Arc::clone(&calls);
    broker
        .subscribe_with(SubscribeOptions::new("held.*").name("all").concurrency(1), move |_| {
            called.fetch_add(1, Ordering::SeqCst);
            // `recv` returns when the test drops the gate.
            let _ = passes.lock().expect("no panic under the lock").recv();
        })
        .expect("a subscription");
    assert!(broker.publish_batch((0..EVENTS).map(|_| event("held.it"))).iter().all(Result::is_ok));
    wait_until("all are here", || broker.stats().bridge.is_some_and(|bridge| bridge.leases as usize == EVENTS));
    proxy.set_down(true);
    thread::sleep(2 * lease_time);
    proxy.set_down(false);
    wait_until("it takes events again", || broker.publish(event("held.it")).is_ok());
    // By then a member that counted as dead would have lost its deliveries.
    thread::sleep(3 * lease_time);
    drop(gate);
    let completed = Filter { status: Some(Status::Completed), ..Filter::default() };
    wait_until("all are handled", || broker.list(&completed).is_ok_and(|page| page.events.len() == EVENTS + 1));
    let lost = broker.stats().bridge.map(|bridge| bridge.leases_lost);
    assert_eq!((calls.load(Ordering::SeqCst) as usize, lost), (EVENTS + 1, Some(0)));
    assert!(broker.stop(PATIENCE).is_clean());
}
