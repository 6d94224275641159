//! A crashed server may forget deliveries. The member that holds them handles them once, and delivery continues.

use std::path::Path;
use std::process::Command;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::{PATIENCE, RECOVERY, event, start, wait_until};
use eventbroker::SubscribeOptions;
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

const EVENTS: usize = 50;

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success());
}

#[test]
fn deliveries_that_the_server_forgot_do_not_stop_others() {
    let server = Server::start();
    let broker = start(&Nats::new(server.url()).lease_time(Duration::from_secs(30)));
    let (open, opened) = channel::<()>();
    let opened = Mutex::new(opened);
    let handled = Arc::new(Mutex::new(Vec::new()));
    let calls = Arc::clone(&handled);
    broker
        .subscribe_with(SubscribeOptions::new("a.*").name("all").queue_capacity(EVENTS), move |delivery| {
            // Once `open` is dropped, each call returns at once.
            let _ = opened.lock().expect("no panic under the lock").recv_timeout(PATIENCE);
            calls.lock().expect("no panic under the lock").push(delivery.event().id().clone());
        })
        .expect("a subscription");
    let consumer = server.folder().join("store/jetstream/$G/streams/RESOLVESPEC_EVENTS/obs");
    let kept = server.folder().join("kept");
    // The state of the consumer before the first delivery.
    server.crash();
    copy(&consumer, &kept);
    server.up();
    let mut sent = Vec::new();
    for _ in 0..EVENTS {
        let event = event("a.b");
        wait_until("it is accepted", || broker.publish(event.clone()).is_ok());
        sent.push(event.id().clone());
    }
    wait_until("all are here", || broker.stats().bridge.is_some_and(|bridge| bridge.leases as usize == EVENTS));
    server.crash();
    std::fs::remove_dir_all(&consumer).expect("it is there");
    copy(&kept, &consumer);
    // Deliveries handled during the outage are acknowledged when the server is back.
    drop(open);
    wait_until("all are handled", || handled.lock().expect("no panic under the lock").len() == EVENTS);
    server.up();
    let back = Instant::now();
    let last = event("a.last");
    wait_until("it is accepted", || broker.publish(last.clone()).is_ok());
    sent.push(last.id().clone());
    wait_until("that is handled too", || handled.lock().expect("no panic under the lock").len() > EVENTS);
    let took = back.elapsed();
    println!("{EVENTS} deliveries were forgotten, it went on within {took:?}");
    assert!(took < RECOVERY, "{took:?}");
    let mut client = Client::of(&server);
    wait_until("all are acknowledged", || {
        let info = client.info("CONSUMER.INFO.RESOLVESPEC_EVENTS.resolvespec-workers==all");
        info.contains("\"num_ack_pending\":0") && info.contains("\"num_pending\":0")
    });
    let mut calls = handled.lock().expect("no panic under the lock").clone();
    calls.sort();
    sent.sort();
    assert!(calls == sent, "{} calls of {}", calls.len(), sent.len());
    assert!(broker.stop(PATIENCE).is_clean());
}
