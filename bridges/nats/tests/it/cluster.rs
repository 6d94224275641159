//! A cluster of three servers with three replicas. The broker works without any one of them. Without two of them no
//! publish is accepted, and no event is lost.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::query::Filter;
use eventbroker::{
    Broker, Config, Confirm, Delivery, Event, EventId, HandlerError, PublishError, Source, SubscribeOptions,
};
use eventbroker_conformance::load::{self, DEADLINE};
use eventbroker_conformance::nats::Cluster;
use eventbroker_conformance::watch::count_local;
use eventbroker_nats::{Nats, OpenError};

use crate::support::client::Client;
use crate::support::{PATIENCE, event, last_error, listen, start, wait_until};

const EVENTS: &str = "RESOLVESPEC_EVENTS";
/// The info requests of the streams and consumers, each of which has its own leader.
const LED: [&str; 4] = [
    "STREAM.INFO.RESOLVESPEC_EVENTS",
    "STREAM.INFO.RESOLVESPEC_EVENTS_STATE",
    "CONSUMER.INFO.RESOLVESPEC_EVENTS.resolvespec-workers==all",
    "CONSUMER.INFO.RESOLVESPEC_EVENTS_STATE.resolvespec-workers==all",
];
/// The load resumes within this time once every stream and consumer has a leader. The servers start an election after
/// 4 to 9 s, and another one if they do not agree.
const LED_FOR: Duration = Duration::from_secs(10);

fn nats(cluster: &Cluster) -> Nats {
    Nats::new(cluster.url()).replicas(3).lease_time(Duration::from_secs(2))
}

#[test]
fn streams_and_consumers_are_kept_on_three_servers() {
    let cluster = Cluster::start();
    let broker = start(&nats(&cluster));
    let calls = listen(&broker, SubscribeOptions::new("a.*").name("all"));
    for _ in 0..100 {
        let id = broker.publish(event("a.b")).expect("it is accepted").id;
        assert_eq!(calls.recv_timeout(PATIENCE).expect("it is handled"), id);
    }
    let mut client = Client::of(cluster.server(0));
    for of in LED {
        let info: serde_json::Value = serde_json::from_str(&client.info(of)).expect("an answer");
        let others = info["cluster"]["replicas"].as_array().map_or(0, Vec::len);
        assert_eq!(others, 2, "beside the leader, of {of}: {info}");
    }
    assert!(broker.stop(PATIENCE).is_clean());
    let refused = Nats::new(cluster.url()).open().expect_err("it is there with other settings");
    let OpenError::Setting(problem) = refused else { panic!("{refused:?}") };
    assert!(problem.contains("num_replicas is 3, not 1"), "{problem}");
}

#[test]
fn the_death_of_a_server_loses_no_event() {
    let cluster = Cluster::start();
    let broker = load::start(nats(&cluster).open().expect("it opens"));
    load::run_within(LED_FOR, "a server of three dies", &broker, 100, |load| {
        for (who, at) in [("the leader", 2), ("a follower", 0)] {
            let dying = cluster.server(cluster.followers_and_leader(EVENTS)[at]);
            dying.crash();
            let began = Instant::now();
            LED.iter().for_each(|of| _ = cluster.leader(of));
            let elected = began.elapsed();
            load.goes_on();
            println!("{who} has died: all have leaders after {elected:?}, it went on after {:?}", began.elapsed());
            dying.up();
            cluster.wait_for_leader();
            load.goes_on();
            // The consumers elect their own leaders.
            wait_until("the consumers report their states", || broker.back_end_stats().is_ok());
        }
    });
}

/// Reads see earlier writes through every server, also when another server leads the stream.
#[test]
fn a_write_is_read_at_once_through_every_server() {
    const EVENTS_EACH: usize = 25;
    const THREADS: usize = 8;
    let cluster = Cluster::start();
    for number in 0..3 {
        let nats = Nats::new(cluster.server(number).url()).replicas(3);
        let broker = start(&nats);
        let write_and_read = &|thread: usize| {
            for event in 0..EVENTS_EACH {
                let id = format!("event {event} of thread {thread} by way of server {number}");
                let of = |payload: u32| Event::builder(Source::System, "a.b").id(&*id).payload(&payload).build();
                broker.publish(of(1).expect("a valid event")).expect("it is accepted");
                let refused =
                    broker.publish(of(2).expect("a valid event")).expect_err("it is known with other content");
                assert!(refused.to_string().contains("other content"), "{refused}");
                let id: EventId = id.parse().expect("an id");
                assert!(broker.get(&id).expect("it answers").is_some(), "{id}");
            }
        };
        thread::scope(|scope| (0..THREADS).for_each(|thread| _ = scope.spawn(move || write_and_read(thread))));
        let all = Filter { limit: Some(1_000), ..Filter::default() };
        assert_eq!(broker.list(&all).expect("it lists").events.len(), (number + 1) * THREADS * EVENTS_EACH);
        assert!(broker.stop(PATIENCE).is_clean());
    }
}

#[test]
fn without_one_server_it_works_and_without_two_it_waits() {
    let cluster = Cluster::start();
    let start = |name: &str, confirm: Confirm| {
        let mut config = Config::default();
        (config.sync_timeout, config.confirm) = (DEADLINE, confirm);
        let builder =
            Broker::builder().config(config).instance_id(name).provider(nats(&cluster).open().expect("it opens"));
        builder.start().expect("it starts")
    };
    let (confirmed, buffered) = (start("confirmed", Confirm::Confirmed), start("buffered", Confirm::Buffered));
    let calls = listen(&confirmed, SubscribeOptions::new("a.*").name("all"));
    let local = count_local(&buffered);
    let mut sent = BTreeSet::new();
    let [one, two, _] = cluster.followers_and_leader(EVENTS).map(|number| cluster.server(number));

    one.crash();
    let takes = |sent: &mut BTreeSet<EventId>| match confirmed.publish(event("a.b")) {
        Ok(held) => sent.insert(held.id),
        // The bridge retries the event, whether or not the server stored it.
        Err(error) => !sent.insert(error.into_event().id().clone()),
    };
    println!("one has died: it takes events after {:?}", wait_until("it takes events", || takes(&mut sent)));
    works(&confirmed);

    two.crash();
    wait_until("nothing is accepted", || !takes(&mut sent));
    let refused = confirmed.publish(event("a.b")).expect_err("two of three are needed");
    assert!(matches!(refused, PublishError::Unknown { .. }), "{refused}");
    sent.insert(refused.into_event().id().clone());
    wait_until("the error is reported", || !last_error(&confirmed).is_empty());
    println!("two have died: {}", last_error(&confirmed));
    for _ in 0..10 {
        sent.insert(buffered.publish(event("a.b")).expect("it is buffered").id);
        buffered.publish(event("local.it")).expect("it is buffered");
    }
    wait_until("local deliveries go on", || local.load(Ordering::SeqCst) == 10);

    let began = Instant::now();
    one.up();
    two.up();
    LED.iter().for_each(|of| _ = cluster.leader(of));
    let led = began.elapsed();
    wait_until("it takes events again", || takes(&mut sent));
    let mut came = BTreeSet::new();
    wait_until("all are handled", || {
        came.extend(calls.try_iter());
        came.is_superset(&sent)
    });
    let took = began.elapsed();
    println!("they are back: all have leaders after {led:?}, all are handled after {took:?}");
    assert_eq!(came, sent);
    assert!(took < led + LED_FOR, "{took:?}");
    assert!(confirmed.stop(PATIENCE).is_clean() && buffered.stop(PATIENCE).is_clean());
}

/// Uses each operation of a broker once: publish, handle, stream, dead letters, list and remove.
fn works(broker: &Broker) {
    let calls = listen(broker, SubscribeOptions::new("b.*").name("good"));
    let refuse = |_: &Delivery<'_>| Err::<(), _>(HandlerError::permanent("no"));
    let bad = broker.subscribe_with(SubscribeOptions::new("b.*").name("bad"), refuse).expect("a subscription");
    wait_until("both are known", || {
        let known = broker.back_end_stats().map(|stats| stats.subscriptions).unwrap_or_default();
        ["good", "bad"].iter().all(|name| known.iter().any(|it| it.name == *name))
    });
    let stream = broker.stream("b.*").expect("a stream");
    let sent: BTreeSet<EventId> = (0..10).map(|_| broker.publish(event("b.c")).expect("it is accepted").id).collect();
    let came: BTreeSet<EventId> = sent.iter().map(|_| calls.recv_timeout(PATIENCE).expect("it is handled")).collect();
    assert_eq!(came, sent);
    stream.recv_timeout(PATIENCE).expect("it sees them too");
    wait_until("all are dead", || broker.dead_letter_count() == Ok(10));
    let listed: BTreeSet<EventId> =
        broker.list(&Filter::default()).expect("it lists").events.iter().map(|event| event.id().clone()).collect();
    assert!(sent.is_subset(&listed), "accepted events are listed");
    broker.unsubscribe(bad).expect("it is there");
    assert_eq!(broker.remove_subscription("bad"), Ok(true));
}
