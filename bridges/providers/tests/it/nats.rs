//! `provider: nats`: events survive the broker.

use std::sync::mpsc::channel;
use std::time::Duration;

use eventbroker::{Event, Source, SubscribeOptions};
use eventbroker_conformance::nats::Server;
use eventbroker_providers::{Config, Loader, OpenError, open, start};

const PATIENCE: Duration = Duration::from_secs(30);

fn config(nats: &str) -> Config {
    let section = format!("event_broker: {{ enabled: true, provider: nats, nats: {{ {nats} }} }}");
    Loader::new().yaml("c.yaml", section).environment([]).load().expect("accepted").config
}

#[test]
fn an_event_waits_in_the_stream_for_the_next_broker() {
    let server = Server::start();
    let names = "stream_name: SHOP, subjects: ['shop.>'], consumer_group: workers, max_age: 1m";
    let config = config(&format!("url: '{}', {names}", server.url()));
    let first = start(&config).expect("it opens");
    let id = first.subscribe_with(SubscribeOptions::new("a.b.c").name("once"), |_| ()).expect("subscribed");
    first.unsubscribe(id).expect("it is there");
    let event = Event::builder(Source::System, "a.b.c").build().expect("valid");
    let id = first.publish(event).expect("the stream holds it").id;
    first.stop(PATIENCE);
    let second = start(&config).expect("it opens");
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
fn subjects_that_are_no_prefix_are_refused() {
    for subjects in ["['a.>', 'b.>']", "['a.*']", "['>']", "['a b.>']"] {
        let error = open(&config(&format!("url: 'nats://127.0.0.1:1', subjects: {subjects}"))).expect_err("refused");
        assert!(matches!(&error, OpenError::Nats(problem) if problem.contains("subject")), "{subjects}: {error}");
    }
}

#[test]
fn a_wrong_password_is_told_and_not_shown() {
    let server = Server::with(r#"authorization { user: "me", password: "the:right/one" }"#);
    let with = |login: &str| config(&format!("url: 'nats://127.0.0.1:{}', {login}", server.port()));
    open(&with("user: me, password: 'the:right/one'")).expect("it opens");
    for login in ["user: me, password: 'wr0ng'", "token: wr0ng", "storage: file"] {
        let error = open(&with(login)).expect_err("refused");
        assert!(matches!(error, OpenError::Nats(_)), "{error:?}");
        assert!(error.to_string().contains("refuses the login") && !error.to_string().contains("wr0ng"), "{error}");
    }
}
