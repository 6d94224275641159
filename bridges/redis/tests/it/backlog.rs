//! `max_backlog` bounds the backlog of a subscription: a publish beyond it is rejected.

use crate::support::{PATIENCE, event, start, wait_until};
use eventbroker::error::FullLimit;
use eventbroker::{PublishError, SubscribeOptions};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

/// A known event is still accepted as a duplicate. Publishes are accepted again after the backlog shrinks.
#[test]
fn a_publish_beyond_max_backlog_is_refused() {
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
