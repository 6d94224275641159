//! Cases about partitions: all instances must agree on their number, subscriptions may ask only for an order that is
//! kept, and a stream can be repartitioned. The same for every provider with partitions.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::mpsc::channel;

use eventbroker::provider::Provider;
use eventbroker::query::Filter;
use eventbroker::{Broker, Event, EventId, HandlerError, RetryPolicy, Source, SubscribeOptions};

use crate::watch::{PATIENCE, wait_until};

/// The settings of a stream that can have partitions. Errors are the texts of the bridge.
pub trait Partitionable: Clone {
    /// The same settings with this number of partitions.
    fn partitioned(&self, partitions: u32) -> Self;

    /// The same settings with `adopt_partitions`.
    fn adopting(&self) -> Self;

    /// Opens the stream.
    ///
    /// # Errors
    /// A setting is refused. Any other error panics.
    fn open(&self) -> Result<Provider, String>;

    /// Repartitions the stream.
    ///
    /// # Errors
    /// The stream is in use, or deliveries wait in it.
    fn repartition(&self) -> Result<(), String>;
}

fn start(stream: &impl Partitionable) -> Broker {
    Broker::builder().provider(stream.open().expect("it opens")).start().expect("it starts")
}

fn refusal(stream: &impl Partitionable) -> String {
    stream.open().expect_err("it is refused")
}

fn keyed(number: usize) -> Event {
    let key = format!("key {}", number % 5);
    Event::builder(Source::System, "work.it").key(key).payload(&number).build().expect("a valid event")
}

fn publish(broker: &Broker, numbers: Range<usize>) -> BTreeSet<EventId> {
    numbers.map(|number| broker.publish(keyed(number)).expect("it is accepted").id).collect()
}

/// All instances must configure the same number of partitions. `stream` is a new one named `name`.
///
/// # Panics
/// If an instance with another number opens the stream, or gets another error.
pub fn said_by_all(stream: &impl Partitionable, name: &str) {
    let partitioned = stream.partitioned(3);
    drop(partitioned.open().expect("it is the first"));
    let expected =
        format!("partitions: is 0, but the stream \"{name}\" has 3; `eventbroker admin repartition` divides it anew");
    assert_eq!(refusal(stream), expected);
    assert!(refusal(&partitioned.partitioned(4)).starts_with("partitions: is 4, "));
    drop(partitioned.open().expect("it says the same"));
    drop(stream.adopting().open().expect("it takes what is there"));
    assert_eq!(refusal(&partitioned.partitioned(65)), "partitions: is 65, at most 64 is allowed");
}

/// A subscription that asks for an order that is not kept is refused with the name of the setting. Both streams are
/// new.
///
/// # Panics
/// If such a subscription is accepted, or another one is refused.
pub fn promised(one: &impl Partitionable, several: &impl Partitionable) {
    let (one, partitioned) = (start(one), start(&several.partitioned(2)));
    let options = |name: &str| SubscribeOptions::new("work.*").name(name);
    let across = one.subscribe_with(options("across").ordered_across_instances(), |_| ()).expect_err("members compete");
    assert!(across.to_string().contains("`partitions`"), "{across}");
    partitioned.subscribe_with(options("across").ordered_across_instances(), |_| ()).expect("each has one owner");
    one.subscribe_with(options("whole").ordered(), |_| ()).expect("it is one stream");
    let whole = partitioned.subscribe_with(options("whole").ordered(), |_| ()).expect_err("they are several streams");
    assert!(whole.to_string().contains("order of a whole subscription"), "{whole}");
    for broker in [one, partitioned] {
        assert!(broker.stop(PATIENCE).is_clean());
    }
}

/// A stream that is not in use can be repartitioned. Handled events and dead letters stay, and existing subscriptions
/// receive the events published before their next member. At the end it is one stream again.
///
/// # Panics
/// If one of these does not hold.
pub fn repartitioned(stream: &impl Partitionable) {
    let mut all = BTreeSet::new();
    let mut letters = 0;
    for (round, partitions) in [0, 3, 5, 2, 0].into_iter().enumerate() {
        let partitioned = stream.partitioned(partitions);
        partitioned.repartition().expect("nobody uses it");
        let broker = start(&partitioned);
        // Published before the first member has subscribed again.
        let ids = publish(&broker, 0..40);
        all.extend(ids.iter().cloned());
        let (sender, calls) = channel();
        let options = SubscribeOptions::new("work.*").name("all").retry(RetryPolicy::fixed(0, PATIENCE));
        broker
            .subscribe_with(options, move |delivery| {
                // The receiver is dropped when the test has ended.
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
        let problem = stream.partitioned(9).repartition().expect_err("it is in use");
        assert!(problem.contains("instances use it"), "{problem}");
        assert!(broker.stop(PATIENCE).is_clean());
        if round == 1 {
            let listed = start(&partitioned);
            let filter = Filter { limit: Some(1_000), ..Filter::default() };
            let page = listed.list(&filter).expect("it answers");
            let held: BTreeSet<EventId> = page.events.iter().map(|event| event.id().clone()).collect();
            assert_eq!(held, all, "earlier events are held");
            assert!(listed.stop(PATIENCE).is_clean());
        }
    }
    drop(stream.partitioned(7).adopting().open().expect("it takes what is there"));
}

/// A stream with waiting deliveries is not repartitioned.
///
/// # Panics
/// If it is, or the error does not report the number of deliveries.
pub fn not_repartitioned_while_something_waits(stream: &impl Partitionable) {
    let broker = start(stream);
    let id = broker.subscribe_with(SubscribeOptions::new("work.*").name("all"), |_| ()).expect("a subscription");
    broker.unsubscribe(id).expect("it is there");
    publish(&broker, 0..3);
    assert!(broker.stop(PATIENCE).is_clean());
    let problem = stream.partitioned(2).repartition().expect_err("three wait");
    assert!(problem.ends_with("3 deliveries wait"), "{problem}");
}
