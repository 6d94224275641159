//! What is written down of statuses, as the setting says; and how much may wait for a subscription.

mod support;

use eventbroker::error::FullLimit;
use eventbroker::{Broker, EventId, HandlerError, PublishError, RetryPolicy, Status, SubscribeOptions};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::{Redis, Status as Keep};
use redis::Connection;
use support::{PATIENCE, ask, client, event, start, wait_until};

/// One that is handled, one that is retried once, one that fails for good; their ids.
fn three(broker: &Broker) -> [EventId; 3] {
    let options =
        SubscribeOptions::new("a.*").name("all").retry(RetryPolicy::fixed(1, std::time::Duration::from_millis(1)));
    broker
        .subscribe_with(options, |delivery| match (delivery.event().event_type().as_str(), delivery.attempt()) {
            ("a.dies", _) => Err(HandlerError::permanent("dead")),
            ("a.later", 1) => Err(HandlerError::retry("later")),
            _ => Ok(()),
        })
        .expect("a subscription");
    let ids = ["a.well", "a.later", "a.dies"].map(|name| broker.publish(event(name)).expect("it is accepted").id);
    wait_until("all are settled", || broker.back_end_stats().is_ok_and(|it| it.subscriptions[0].dead == 1));
    wait_until("nothing is left", || broker.stats().bridge.is_some_and(|it| it.leases == 0));
    ids
}

fn keys(client: &mut Connection) -> usize {
    ask::<Vec<String>>(client, &["KEYS", "*:status:*"]).len()
}

#[test]
fn only_what_the_setting_says_is_written_down() {
    for (keep, written, statuses, retries) in [
        (Keep::Full, 3, [Status::Completed, Status::Completed, Status::Failed], [0, 1, 0]),
        (Keep::Failures, 2, [Status::Completed, Status::Completed, Status::Failed], [0, 1, 0]),
        (Keep::Off, 0, [Status::Completed; 3], [0; 3]),
    ] {
        let server = Server::start();
        let redis = Redis::new(server.url()).max_len(0).status(keep);
        let broker = start(&redis);
        let ids = three(&broker);
        assert!(broker.stop(PATIENCE).is_clean());
        assert_eq!(keys(&mut client(&server.url())), written, "{keep:?}");
        // Another one, which has none of them in its own store.
        let reader = start(&redis);
        let events = ids.map(|id| reader.get(&id).expect("it answers").expect("it is held"));
        assert_eq!(events.each_ref().map(|event| event.status()), statuses, "{keep:?}");
        assert_eq!(events.each_ref().map(|event| event.retry_count()), retries, "{keep:?}");
        assert_eq!(events[0].completed_at().is_some(), keep == Keep::Full, "{keep:?}");
        assert_eq!(reader.dead_letter_count(), Ok(1), "{keep:?}");
        assert!(reader.stop(PATIENCE).is_clean());
    }
}

/// What waits for a subscription is bounded; what is known is a duplicate all the same, and it goes on when there is room.
#[test]
fn beyond_the_backlog_a_publish_is_refused() {
    for partitions in [0, 2] {
        let server = Server::start();
        let broker = start(&Redis::new(server.url()).max_backlog(5).partitions(partitions));
        let away = broker.subscribe_with(SubscribeOptions::new("a.*").name("all"), |_| ()).expect("a subscription");
        broker.unsubscribe(away).expect("it is there");
        let first = event("a.b");
        broker.publish(first.clone()).expect("there is room");
        let mut refused = None;
        wait_until("it is full", || {
            refused = broker.publish(event("a.b")).err();
            refused.is_some()
        });
        let refused = refused.expect("an error");
        let is_backlog = matches!(refused, PublishError::Full { limit: FullLimit::Backlog { max: 5 }, .. });
        assert!(is_backlog, "{refused}");
        assert!(broker.publish(first).expect("it is known").duplicate);
        broker.subscribe_with(SubscribeOptions::new("a.*").name("all"), |_| ()).expect("a subscription");
        wait_until("there is room again", || broker.publish(event("a.b")).is_ok());
        assert!(broker.stop(PATIENCE).is_clean());
    }
}
