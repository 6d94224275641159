//! Retries that wait at the server while other clients trim, claim or write entries, or the server's memory is full.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::retries::{DELAY, LEASE, LONG, Site, XGROUP, fail_before, failing, next};
use crate::support::{PATIENCE, ask, client, event, start, wait_until};

#[test]
fn a_deferred_retry_survives_the_trimming_of_its_entry() {
    let site = Site::new(0);
    let broker = start(&site.redis);
    let attempts = fail_before(&broker, failing(1, DELAY), 2);
    broker.publish(event("fail.it")).expect("it is accepted");
    assert_eq!(next(&attempts).0, 1);
    site.wait_until_deferred();
    assert_eq!(ask::<u64>(&mut site.client(), &["XTRIM", "S", "MAXLEN", "0"]), 1);
    assert_eq!(next(&attempts).0, 2);
    let stats = broker.back_end_stats().expect("it answers");
    assert_eq!((stats.entries_lost, stats.losses_unknown), (0, 0));
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_delivery_whose_entry_was_removed_is_deferred() {
    let site = Site::new(0);
    let broker = start(&site.redis);
    let (sender, attempts) = channel();
    let mut admin = site.client();
    let options = failing(1, LEASE + Duration::from_millis(1));
    let url = site.server.url();
    broker
        .subscribe_with(options, move |delivery| {
            let _ = sender.send((delivery.attempt(), Instant::now()));
            if delivery.attempt() > 1 {
                return Ok(());
            }
            // The member notices the trimmed entry when it extends its lease.
            wait_until("nothing of it is pending", || {
                ask::<(usize, redis::Value, redis::Value, redis::Value)>(&mut client(&url), &["XPENDING", "S", XGROUP])
                    .0
                    == 0
            });
            Err("no")
        })
        .expect("a subscription");
    broker.publish(event("fail.it")).expect("it is accepted");
    assert_eq!(next(&attempts).0, 1);
    assert_eq!(ask::<u64>(&mut admin, &["XTRIM", "S", "MAXLEN", "0"]), 1);
    assert_eq!(next(&attempts).0, 2);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_lost_delivery_is_not_deferred() {
    let site = Site::new(0);
    let broker = start(&site.redis);
    let (sender, attempts) = channel();
    let url = site.server.url();
    broker
        .subscribe_with(failing(1, LONG), move |delivery| {
            let _ = sender.send((delivery.attempt(), Instant::now()));
            let client = &mut client(&url);
            let entries: Vec<(String, redis::Value)> = ask(client, &["XRANGE", "S", "-", "+"]);
            ask::<redis::Value>(client, &["XCLAIM", "S", XGROUP, "somebody", "0", &entries[0].0]);
            Err::<(), _>("too late")
        })
        .expect("a subscription");
    broker.publish(event("fail.it")).expect("it is accepted");
    assert_eq!(next(&attempts).0, 1);
    wait_until("it is counted", || broker.stats().bridge.is_some_and(|bridge| bridge.leases_lost == 1));
    assert_eq!((site.later(XGROUP), site.pending()), (0, 1), "another consumer holds it");
    broker.stop(PATIENCE);
}

#[test]
fn a_due_retry_runs_while_the_memory_is_full() {
    let site = Site::new(0);
    let broker = start(&site.redis);
    let attempts = fail_before(&broker, failing(1, DELAY), 2);
    broker.publish(event("fail.it")).expect("it is accepted");
    assert_eq!(next(&attempts).0, 1);
    site.wait_until_deferred();
    let mut admin = site.client();
    ask::<()>(&mut admin, &["CONFIG", "SET", "maxmemory", "1"]);
    wait_until("the retry is redelivered", || site.later(XGROUP) == 0);
    ask::<()>(&mut admin, &["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(next(&attempts).0, 2);
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn foreign_members_of_the_retry_set_block_no_retry() {
    let site = Site::new(0);
    let broker = start(&site.redis);
    let attempts = fail_before(&broker, failing(1, DELAY), 2);
    let later = site.key(&format!("later:{XGROUP}"));
    ask::<u64>(&mut site.client(), &["ZADD", &later, "0", "no JSON", "0", "5", "0", "{}", "inf", "no JSON either"]);
    broker.publish(event("fail.it")).expect("it is accepted");
    assert_eq!((next(&attempts).0, next(&attempts).0), (1, 2));
    assert_eq!(site.later(XGROUP), 1);
    let subscription = broker.stats().subscriptions[0].id;
    broker.unsubscribe(subscription).expect("it is there");
    broker.remove_subscription("failing").expect("it is known");
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_suspect_whose_call_ends_is_none_any_more() {
    let site = Site::new(0);
    let broker = start(&site.redis);
    let away = broker.subscribe_with(failing(0, LONG), |_| ()).expect("a subscription");
    broker.unsubscribe(away).expect("it is there");
    broker.publish(event("fail.it")).expect("it is accepted");
    // A consumer claims the delivery and never acks it.
    ask::<redis::Value>(&mut site.client(), &["XREADGROUP", "GROUP", XGROUP, "dead", "STREAMS", "S", ">"]);
    let url = site.server.url();
    let (sender, marked) = channel();
    broker
        .subscribe_with(failing(1, LONG), move |_| {
            let _ = sender.send(ask::<usize>(&mut client(&url), &["HLEN", &format!("S:marks:{XGROUP}")]));
            Err::<(), _>("no")
        })
        .expect("a subscription");
    assert_eq!(marked.recv_timeout(PATIENCE), Ok(1), "it is a suspect");
    site.wait_until_deferred();
    assert!(!site.exists(&format!("marks:{XGROUP}")));
    assert!(broker.stop(PATIENCE).is_clean());
}
