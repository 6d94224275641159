//! `provider: redis`: events survive the broker.

use std::sync::mpsc::channel;
use std::time::Duration;

use eventbroker::{Event, Source, SubscribeOptions};
use eventbroker_conformance::redis::Server;
use eventbroker_providers::{Config, Loader, OpenError, open, start};

const PATIENCE: Duration = Duration::from_secs(30);

fn config(redis: &str) -> Config {
    let section = format!("event_broker: {{ enabled: true, provider: redis, redis: {{ {redis} }} }}");
    Loader::new().yaml("c.yaml", section).environment([]).load().expect("accepted").config
}

#[test]
fn an_event_waits_in_the_stream_for_the_next_broker() {
    let server = Server::start();
    let names = "stream_name: shop, consumer_group: workers";
    let by_port = config(&format!("host: 127.0.0.1, port: {}, {names}", server.port()));
    let by_url = config(&format!("url: '{}', {names}", server.url()));
    let first = start(&by_port).expect("it opens");
    let id = first.subscribe_with(SubscribeOptions::new("a.b.c").name("once"), |_| ()).expect("subscribed");
    first.unsubscribe(id).expect("it is there");
    let event = Event::builder(Source::System, "a.b.c").build().expect("valid");
    let id = first.publish(event).expect("the stream holds it").id;
    first.stop(PATIENCE);
    let second = start(&by_url).expect("it opens");
    let (sender, received) = channel();
    second
        .subscribe_with(SubscribeOptions::new("a.b.c").name("once"), move |delivery| {
            // The receiver is dropped when the test has ended.
            let _ = sender.send(delivery.event().id().clone());
        })
        .expect("subscribed");
    assert_eq!(received.recv_timeout(PATIENCE), Ok(id));
    let groups = second.back_end_stats().expect("it answers").subscriptions;
    assert_eq!(groups.iter().map(|it| (&*it.group, &*it.name)).collect::<Vec<_>>(), [("workers", "once")]);
    second.stop(PATIENCE);
}

#[test]
fn a_wrong_password_is_told_and_not_shown() {
    let server = Server::with(&["--requirepass", "the:right/one"]);
    let right = config(&format!("host: 127.0.0.1, port: {}, password: 'the:right/one'", server.port()));
    open(&right).expect("it opens");
    let wrong = config(&format!("host: 127.0.0.1, port: {}, password: 'wr0ng'", server.port()));
    let error = open(&wrong).expect_err("refused");
    assert!(matches!(error, OpenError::Redis(_)), "{error:?}");
    assert!(error.to_string().contains("authentication failed") && !error.to_string().contains("wr0ng"), "{error}");
    let none = open(&config(&format!("host: 127.0.0.1, port: {}", server.port()))).expect_err("refused");
    assert!(none.to_string().contains("NOAUTH"), "{none}");
}
