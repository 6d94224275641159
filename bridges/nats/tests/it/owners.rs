//! Owners of partitions. A member that joins or leaves gets or gives up its share without waiting for a lease. A new
//! owner handles nothing of a partition while another client still holds messages of it.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::{PATIENCE, wait_until};
use eventbroker::{Broker, Delivery, Event, Source, SubscribeOptions};
use eventbroker_conformance::nats::Server;
use eventbroker_nats::Nats;

/// A message that another client pulled is redelivered after this lease.
const LEASE: Duration = Duration::from_secs(2);
/// No test waits for this lease to expire.
const LONG_LEASE: Duration = Duration::from_secs(600);

fn start(nats: &Nats, name: &str) -> Broker {
    Broker::builder().instance_id(name).provider(nats.open().expect("it opens")).start().expect("it starts")
}

fn options() -> SubscribeOptions {
    SubscribeOptions::new("work.*").name("all").ordered_across_instances()
}

/// Subscribes, and returns the numbers of the events that the broker handles.
fn listen(broker: &Broker) -> Receiver<u64> {
    let (sender, calls) = channel();
    let handler = move |delivery: &Delivery| {
        // The receiver is dropped when the test has ended.
        let _ = sender.send(delivery.event().payload_as().expect("a number"));
    };
    broker.subscribe_with(options(), handler).expect("a subscription");
    calls
}

fn publish(broker: &Broker, key: &str, number: u64) {
    let event = Event::builder(Source::System, "work.it").key(key).payload(&number).build().expect("a valid event");
    broker.publish(event).expect("it is accepted");
}

/// Another client pulls messages of the only partition, and never settles them.
fn steal(server: &Server, count: usize) {
    let mut client = Client::of(server);
    for _ in 0..count {
        let stolen = client.take("RESOLVESPEC_EVENTS.resolvespec-workers==all=p0");
        assert!(stolen.contains("events-p.0.system.work.it"), "{stolen}");
    }
}

fn next(calls: &Receiver<u64>, count: u64) -> Vec<u64> {
    (0..count).map(|_| calls.recv_timeout(PATIENCE).expect("the handler is called")).collect()
}

#[test]
fn partitions_are_rebalanced_when_members_join_and_leave() {
    let server = Server::start();
    let nats = Nats::new(server.url()).partitions(4).lease_time(LONG_LEASE);
    let here = start(&nats, "here");
    let by_here = listen(&here);
    let there = start(&nats, "there");
    let by_there = listen(&there);
    let keys: Vec<String> = (0..40).map(|number| format!("key {number}")).collect();
    let mut number = 0;
    let mut round = |publisher: &Broker, members: &[&Receiver<u64>]| -> Vec<usize> {
        for key in &keys {
            publish(publisher, key, number);
            number += 1;
        }
        // An event of an earlier round may be handled twice, so only those of this round count.
        let this_round = number - keys.len() as u64..number;
        let (mut counts, mut seen, began) = (vec![0; members.len()], BTreeSet::new(), Instant::now());
        while seen.len() < keys.len() {
            assert!(began.elapsed() < PATIENCE, "{} of {} were handled", seen.len(), keys.len());
            for (count, member) in counts.iter_mut().zip(members) {
                *count += member.try_iter().filter(|it| this_round.contains(it) && seen.insert(*it)).count();
            }
        }
        counts
    };
    wait_until("both have a share", || round(&here, &[&by_here, &by_there]).iter().all(|count| *count > 5));
    assert!(here.stop(PATIENCE).is_clean());
    // The remaining member takes over at once, not after the lease of ten minutes.
    assert_eq!(round(&there, &[&by_there]), [keys.len()]);
    assert!(there.stop(PATIENCE).is_clean());
}

#[test]
fn a_busy_owner_gives_up_its_surplus() {
    let server = Server::start();
    let nats = Nats::new(server.url()).partitions(4).lease_time(LONG_LEASE);
    let here = start(&nats, "here");
    let (sender, by_here) = channel();
    let handler = move |delivery: &Delivery| {
        std::thread::sleep(Duration::from_millis(2));
        let _ = sender.send(delivery.attempt());
    };
    here.subscribe_with(options(), handler).expect("a subscription");
    let (mut published, mut handled) = (0, 0);
    let mut go_on = || {
        handled += by_here.try_iter().count();
        // A backlog larger than the member fetches at a time from all partitions.
        if published < handled + 2_000 {
            (0..200).for_each(|number| publish(&here, &format!("key {number}"), number));
            published += 200;
        }
    };
    (0..10).for_each(|_| go_on());
    let there = start(&nats, "there");
    let by_there = listen(&there);
    wait_until("the other one has a share", || {
        go_on();
        by_there.try_iter().next().is_some()
    });
    assert!(there.stop(PATIENCE).is_clean());
    assert!(here.stop(PATIENCE).is_clean());
}

#[test]
fn a_new_owner_begins_with_the_messages_of_others() {
    let server = Server::start();
    let nats = Nats::new(server.url()).partitions(1).lease_time(LEASE);
    let broker = start(&nats, "here");
    let id = broker.subscribe_with(options(), |_| ()).expect("a subscription");
    broker.unsubscribe(id).expect("it is there");
    (0..20).for_each(|number| publish(&broker, "one", number));
    steal(&server, 3);
    let calls = listen(&broker);
    assert_eq!(next(&calls, 20), (0..20).collect::<Vec<u64>>());
    assert!(broker.stop(PATIENCE).is_clean());
}

/// The server delivers one message to another client whose pull request is pending beside the owner's.
#[test]
fn a_message_in_other_hands_holds_up_those_behind_it() {
    let server = Server::start();
    let nats = Nats::new(server.url()).partitions(1).lease_time(LEASE);
    let broker = start(&nats, "here");
    let calls = listen(&broker);
    publish(&broker, "one", 0);
    assert_eq!(next(&calls, 1), [0]);
    let publisher = std::thread::spawn({
        let broker = start(&nats, "there");
        move || {
            // The other client's pull request gets a message sooner or later.
            (1..400).for_each(|number| publish(&broker, "one", number));
            assert!(broker.stop(PATIENCE).is_clean());
        }
    });
    steal(&server, 1);
    publisher.join().expect("it publishes");
    assert_eq!(next(&calls, 399), (1..400).collect::<Vec<u64>>());
    assert!(broker.stop(PATIENCE).is_clean());
    assert_eq!(calls.try_iter().collect::<BTreeSet<u64>>(), BTreeSet::new());
}
