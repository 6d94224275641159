//! Partitions as settings: who has to say the same, what can be asked for with and without them, and how a stream is divided anew.

mod support;

use std::collections::BTreeSet;

use eventbroker::query::Filter;
use eventbroker::{Broker, Event, EventId, HandlerError, RetryPolicy, Source, SubscribeOptions};
use eventbroker_conformance::nats::Server;
use eventbroker_nats::{Nats, OpenError};
use support::{PATIENCE, start, wait_until};

fn refusal(nats: &Nats) -> String {
    match nats.open() {
        Err(OpenError::Setting(problem)) => problem,
        other => panic!("{other:?}"),
    }
}

fn keyed(number: usize) -> Event {
    let key = format!("key {}", number % 5);
    Event::builder(Source::System, "work.it").key(key).payload(&number).build().expect("a valid event")
}

fn publish(broker: &Broker, numbers: std::ops::Range<usize>) -> BTreeSet<EventId> {
    numbers.map(|number| broker.publish(keyed(number)).expect("it is accepted").id).collect()
}

#[test]
fn all_instances_say_the_same() {
    let server = Server::start();
    let divided = Nats::new(server.url()).partitions(3);
    drop(divided.open().expect("it is the first"));
    let problem = refusal(&Nats::new(server.url()));
    let expected = "partitions: is 0, but the stream \"RESOLVESPEC_EVENTS\" has 3; `eventbroker admin repartition` divides it anew";
    assert_eq!(problem, expected);
    assert!(refusal(&divided.clone().partitions(4)).starts_with("partitions: is 4, "));
    drop(divided.open().expect("it says the same"));
    drop(Nats::new(server.url()).adopt_partitions(true).open().expect("it takes what is there"));
    assert_eq!(refusal(&divided.partitions(65)), "partitions: is 65, at most 64 is allowed");
}

#[test]
fn what_cannot_be_kept_is_refused_with_the_name_of_the_setting() {
    let server = Server::start();
    let one = start(&Nats::new(server.url()).stream_name("one").subject_prefix("one"));
    let divided = start(&Nats::new(server.url()).stream_name("divided").subject_prefix("divided").partitions(2));
    let options = |name: &str| SubscribeOptions::new("work.*").name(name);
    let across = one.subscribe_with(options("across").ordered_across_instances(), |_| ()).expect_err("members compete");
    assert!(across.to_string().contains("`partitions`"), "{across}");
    divided.subscribe_with(options("across").ordered_across_instances(), |_| ()).expect("each has one owner");
    one.subscribe_with(options("whole").ordered(), |_| ()).expect("it is one stream");
    let whole = divided.subscribe_with(options("whole").ordered(), |_| ()).expect_err("they are several streams");
    assert!(whole.to_string().contains("order of a whole subscription"), "{whole}");
    for broker in [one, divided] {
        assert!(broker.stop(PATIENCE).is_clean());
    }
}

/// What was handled, and dead letters, are there in whatever way a stream is divided; what is published in between reaches those who were
/// subscribed before.
#[test]
fn a_stream_is_divided_anew_when_nobody_uses_it() {
    let server = Server::start();
    let nats = Nats::new(server.url()).stream_name("stream");
    let mut all = BTreeSet::new();
    let mut letters = 0;
    for (round, partitions) in [0, 3, 5, 2, 0].into_iter().enumerate() {
        nats.clone().partitions(partitions).repartition().expect("nobody uses it");
        let broker = start(&nats.clone().partitions(partitions));
        // Before anybody has subscribed again.
        let ids = publish(&broker, 0..40);
        all.extend(ids.iter().cloned());
        let (sender, calls) = std::sync::mpsc::channel();
        let options = SubscribeOptions::new("work.*").name("all").retry(RetryPolicy::fixed(0, PATIENCE));
        broker
            .subscribe_with(options, move |delivery| {
                // Nobody listens any more when the test has seen enough.
                let _ = sender.send(delivery.event().id().clone());
                if delivery.event().payload_as::<usize>() == Ok(7) {
                    Err(HandlerError::permanent("seven"))
                } else {
                    Ok(())
                }
            })
            .expect("a subscription");
        let more = publish(&broker, 40..50);
        all.extend(more.iter().cloned());
        let expected: BTreeSet<EventId> = if round == 0 { more } else { ids.union(&more).cloned().collect() };
        let came: BTreeSet<EventId> =
            expected.iter().map(|_| calls.recv_timeout(PATIENCE).expect("it is called")).collect();
        assert_eq!(came, expected, "round {round}");
        letters += usize::from(round > 0);
        wait_until("dead letters are kept", || broker.dead_letter_count() == Ok(letters));
        let problem = nats.clone().partitions(9).repartition().expect_err("it is in use").to_string();
        assert!(problem.contains("instances use it"), "{problem}");
        assert!(broker.stop(PATIENCE).is_clean());
        if round == 1 {
            let listed = start(&nats.clone().partitions(partitions));
            let filter = Filter { limit: Some(1_000), ..Filter::default() };
            let page = listed.list(&filter).expect("it answers");
            let held: BTreeSet<EventId> = page.events.iter().map(|event| event.id().clone()).collect();
            assert_eq!(held, all, "what was before is held");
            assert!(listed.stop(PATIENCE).is_clean());
        }
    }
    drop(nats.adopt_partitions(true).partitions(7).open().expect("it takes what is there"));
}

#[test]
fn a_stream_in_which_something_waits_is_not_divided() {
    let server = Server::start();
    let nats = Nats::new(server.url());
    let broker = start(&nats);
    let id = broker.subscribe_with(SubscribeOptions::new("work.*").name("all"), |_| ()).expect("a subscription");
    broker.unsubscribe(id).expect("it is there");
    publish(&broker, 0..3);
    assert!(broker.stop(PATIENCE).is_clean());
    let problem = nats.partitions(2).repartition().expect_err("three wait").to_string();
    assert!(problem.ends_with("3 deliveries wait"), "{problem}");
}
