//! A refused event leaves nothing in any queue, store, stream or total, and is returned unchanged.

use eventbroker::error::{FullLimit, StreamError};
use eventbroker::{Broker, Overflow, PublishError, SubscribeOptions, Verdict};

use crate::support::{Gate, Settlements, event, stats_of};

struct Held {
    broker: Broker,
    gate: Gate,
    settlements: Settlements,
}

/// A broker with subscriptions of these names and capacities, in this order. In each, one call waits at the gate, and
/// one event is queued.
fn held(subscriptions: &[(&str, usize, Overflow)]) -> Held {
    let broker = Broker::builder().start().expect("a running broker");
    let gate = Gate::closed();
    for (name, capacity, overflow) in subscriptions {
        let options = SubscribeOptions::new("a.*").name(*name).concurrency(1).queue_capacity(*capacity);
        let handler_gate = gate.clone();
        broker.subscribe_with(options.overflow(*overflow), move |_| handler_gate.pass()).expect("a subscription");
    }
    broker.publish(event("a.running")).expect("accepted");
    subscriptions.iter().for_each(|_| gate.wait_for_arrival());
    broker.publish(event("a.queued")).expect("accepted");
    let settlements = Settlements::of(&broker);
    Held { broker, gate, settlements }
}

#[test]
fn when_one_subscription_is_full_no_other_receives_the_event() {
    let (tight, roomy) = (("tight", 1, Overflow::Reject), ("roomy", 100, Overflow::Reject));
    for order in [[tight, roomy], [roomy, tight]] {
        let Held { broker, gate, settlements } = held(&order);
        let stream = broker.stream("*").expect("a stream");
        let before = broker.stats();
        assert_eq!((before.accepted, before.rejected), (2, 0));
        let sent = event("a.refused");

        let refused = broker.publish(sent.clone()).expect_err("the subscription `tight` is full");

        let expected = FullLimit::Subscription { name: "tight".into(), capacity: 1 };
        assert!(matches!(&refused, PublishError::Full { limit, .. } if *limit == expected), "{refused:?}");
        assert_eq!(refused.event().id(), sent.id());
        let after = broker.stats();
        assert_eq!((after.accepted, after.rejected, after.in_flight), (2, 1, 2));
        assert_eq!((stats_of(&broker, "roomy").queued, stats_of(&broker, "tight").queued), (1, 1));
        assert_eq!(broker.get(sent.id()).expect("the memory store"), None);
        assert_eq!(broker.store_stats().events, 2);
        assert_eq!(stream.try_recv(), Err(StreamError::Timeout));

        gate.open();
        assert!(settlements.take(4).iter().all(|it| it.verdict == Verdict::Done && it.id != *sent.id()));
        let accepted = broker.publish(refused.into_event()).expect("accepted");
        assert!(!accepted.duplicate);
        let mut names: Vec<String> = settlements
            .take(2)
            .into_iter()
            .map(|it| {
                assert_eq!((&it.id, it.verdict, it.attempts), (sent.id(), Verdict::Done, 1));
                it.name
            })
            .collect();
        names.sort();
        assert_eq!(names, ["roomy", "tight"]);
        assert_eq!(broker.stats().accepted, 3);
    }
}

#[test]
fn places_reserved_for_a_refused_event_are_released() {
    let Held { broker, gate, settlements } = held(&[("roomy", 2, Overflow::Reject), ("tight", 1, Overflow::Reject)]);
    for _ in 0..100 {
        broker.publish(event("a.refused")).expect_err("the subscription `tight` is full");
    }
    assert_eq!(stats_of(&broker, "roomy").queued, 1);
    gate.open();
    settlements.take(4);
    for _ in 0..100 {
        broker.publish(event("a.b")).expect("accepted");
        assert!(settlements.take(2).iter().all(|it| it.verdict == Verdict::Done));
    }
}

#[test]
fn nothing_is_dropped_for_an_event_that_is_refused() {
    let dropping = [("oldest", 1, Overflow::DropOldest), ("newest", 1, Overflow::DropNewest)];
    let Held { broker, gate, settlements } = held(&[dropping[0], dropping[1], ("tight", 1, Overflow::Reject)]);
    broker.publish(event("a.refused")).expect_err("the subscription `tight` is full");
    assert_eq!(settlements.so_far(), []);
    assert_eq!(broker.stats().deliveries.dropped, 0);
    gate.open();
    let verdicts = settlements.take(6);
    assert!(verdicts.iter().all(|it| it.verdict == Verdict::Done), "{verdicts:?}");
}

#[test]
fn a_refused_event_is_returned_unchanged() {
    let Held { broker, gate, .. } = held(&[("tight", 1, Overflow::Reject)]);
    let sent = event("a.refused");
    let refusals = [
        broker.publish(sent.clone()).expect_err("full"),
        broker.publish_async(sent.clone()).map(|receipt| receipt.id().clone()).expect_err("full"),
        broker.publish_sync(sent.clone()).expect_err("full"),
        broker.publish_batch([sent.clone()]).remove(0).expect_err("full"),
    ];
    gate.open();
    for refused in refusals {
        assert!(refused.is_full());
        assert_eq!(refused.into_event(), sent);
    }
}
