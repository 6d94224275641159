//! `provider: database` with a `postgres:` URL: events survive the broker.

use std::sync::mpsc::channel;
use std::time::Duration;

use eventbroker::{Event, Source, SubscribeOptions};
use eventbroker_conformance::postgres::{PASSWORD, Server};
use eventbroker_providers::{Config, Loader, OpenError, Pooler, open, start};

const PATIENCE: Duration = Duration::from_secs(30);

fn config(database: &str) -> Config {
    let section = format!("event_broker: {{ enabled: true, provider: database, database: {{ {database} }} }}");
    Loader::new().yaml("c.yaml", section).environment([]).load().expect("accepted").config
}

#[test]
fn whether_there_is_a_pooler_may_stand_with_or_without_quotes() {
    assert_eq!(config("url: 'postgres://db/events'").connections.pooler, Pooler::Auto);
    for (written, pooler) in
        [("true", Pooler::True), ("'true'", Pooler::True), ("false", Pooler::False), ("auto", Pooler::Auto)]
    {
        let loaded = config(&format!("url: 'postgres://db/events', pooler: {written}, max_connections: 2"));
        assert_eq!((loaded.connections.pooler, loaded.connections.max_connections), (pooler, 2), "{written}");
    }
    let schema = eventbroker_providers::schema();
    let allowed = schema["properties"]["event_broker"]["properties"]["database"]["properties"]["pooler"].to_string();
    assert!(allowed.contains(r#"["auto","true","false",true,false]"#), "{allowed}");
}

#[test]
fn an_event_waits_in_the_database_for_the_next_broker() {
    let server = Server::start();
    let url = server.database();
    let keys = "table_name: shop_events, consumer_group: workers, channel: shop, poll_interval: 100ms";
    let good = config(&format!("url: '{url}', {keys}"));
    let first = start(&good).expect("it opens");
    first.subscribe_with(SubscribeOptions::new("a.b.c").name("once"), |_| ()).expect("subscribed");
    first.stop(PATIENCE);
    let second = start(&good).expect("it opens");
    let event = Event::builder(Source::System, "a.b.c").build().expect("valid");
    let id = second.publish(event).expect("the database holds it").id;
    second.stop(PATIENCE);
    let third = start(&good).expect("it opens");
    let (sender, received) = channel();
    third
        .subscribe_with(SubscribeOptions::new("a.b.c").name("once"), move |delivery| {
            // The receiver is dropped when the test has ended.
            let _ = sender.send(delivery.event().id().clone());
        })
        .expect("subscribed");
    assert_eq!(received.recv_timeout(PATIENCE), Ok(id));
    third.stop(PATIENCE);
    let wrong = open(&config(&format!("url: '{}'", server.tcp(&url, "wr0ng")))).expect_err("refused");
    assert!(matches!(wrong, OpenError::Database(_)), "{wrong:?}");
    assert!(
        wrong.to_string().contains("password authentication failed") && !wrong.to_string().contains("wr0ng"),
        "{wrong}"
    );
    let quoted = config(&format!("url: '{}', table_name: 'a\"b'", server.tcp(&url, PASSWORD)));
    let quoted = open(&quoted).expect_err("refused").to_string();
    assert!(quoted.starts_with("event_broker.database: table_name: "), "{quoted}");
}
