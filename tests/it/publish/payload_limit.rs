//! `max_payload`: every form of publish refuses a larger payload and names the bound; one at the bound is accepted.

use eventbroker::error::Problem;
use eventbroker::{Broker, Config, Event, Payload, PublishError, Source};

use crate::support::Settlements;

/// An event whose payload is a JSON string of `bytes` bytes, the quotes included.
fn of_size(bytes: usize) -> Event {
    let payload = Payload::from_json(format!("\"{}\"", "x".repeat(bytes - 2))).expect("JSON");
    assert_eq!(payload.len(), bytes);
    Event::builder(Source::System, "a.b").payload_raw(payload).build().expect("a valid event")
}

fn assert_bound(broker: &Broker, max: usize) {
    let settlements = Settlements::of(broker);
    broker.subscribe("a.b", |_| ()).expect("a subscription");
    let too_large = of_size(max + 1);
    let refusals = [
        broker.publish(too_large.clone()).expect_err("publish"),
        broker.publish_async(too_large.clone()).map(|receipt| receipt.id().clone()).expect_err("publish_async"),
        broker.publish_sync(too_large.clone()).expect_err("publish_sync"),
        broker.publish_batch([too_large.clone()]).remove(0).expect_err("publish_batch"),
    ];
    for refused in refusals {
        let PublishError::Invalid { reason, event } = &refused else { panic!("{refused:?}") };
        assert_eq!((reason.field, &reason.problem), ("payload", &Problem::TooLong { max, actual: max + 1 }));
        assert_eq!((event.id(), event.payload()), (too_large.id(), too_large.payload()));
        assert_eq!(refused.code(), "invalid");
        let text = format!("invalid event: payload: is {} bytes long, at most {max} are allowed", max + 1);
        assert_eq!(refused.to_string(), text);
    }
    assert_eq!((broker.stats().rejected, broker.stats().accepted, broker.store_stats().events), (4, 0, 0));
    assert_eq!(settlements.so_far(), []);

    let largest = broker.publish(of_size(max)).expect("accepted");
    assert_eq!(settlements.next().id, largest.id);
}

#[test]
fn the_default_is_a_mebibyte() {
    assert_bound(&Broker::builder().start().expect("a running broker"), 1 << 20);
}

#[test]
fn it_is_a_setting() {
    for max in [4, 16, 2 << 20] {
        let mut config = Config::default();
        config.max_payload_bytes = max;
        assert_bound(&Broker::builder().config(config).start().expect("a running broker"), max);
    }
}
