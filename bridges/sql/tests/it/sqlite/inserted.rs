//! A row that any program inserts is an event like any other.

use std::collections::BTreeSet;
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::support::Folder;
use eventbroker::query::Filter;
use eventbroker::{Broker, Event, Source, Status, SubscribeOptions};
use eventbroker_sql::sqlite::Outbox;
use eventbroker_sql::{SqlValue, Sqlite};
use rusqlite::Connection;
use rusqlite::types::Value;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn a_plain_insert_is_delivered_with_its_values_and_defaults() {
    let folder = Folder::new();
    let path = folder.file("events.db");
    let broker = Broker::builder().provider(Sqlite::new(&path).open().expect("it opens")).start().expect("it starts");
    let (sender, calls) = channel();
    broker
        .subscribe_with(SubscribeOptions::new("public.*.create").name("all"), move |delivery| {
            // The receiver is dropped when the test has ended.
            let _ = sender.send(delivery.event().clone());
        })
        .expect("a subscription");
    let other = Connection::open(&path).expect("it opens");
    other
        .execute_batch(
            "INSERT INTO events (id, source, type, payload, key) VALUES
             ('from-elsewhere', 'database', 'public.users.create', '{\"name\": \"Ada\"}', 'ada'),
             ('not-wanted', 'database', 'public.users.delete', NULL, NULL)",
        )
        .expect("two rows");
    let event = calls.recv_timeout(PATIENCE).expect("it is delivered");
    assert_eq!((event.id().to_string().as_str(), event.source()), ("from-elsewhere", Source::Database));
    assert_eq!((event.payload().as_str(), event.key()), ("{\"name\": \"Ada\"}", Some("ada")));
    assert_eq!((event.schema(), event.entity(), event.operation()), (Some("public"), Some("users"), Some("create")));
    assert!(event.created_at().elapsed().is_ok_and(|age| age < PATIENCE));
    let unwanted = broker.get(&"not-wanted".parse().expect("an id")).expect("it answers").expect("it is there");
    assert_eq!(unwanted.status(), Status::Completed);
    assert!(broker.stop(PATIENCE).is_clean());
    assert_eq!(calls.try_iter().count(), 0);
}

#[test]
fn a_row_that_is_not_an_event_fails_by_itself() {
    let folder = Folder::new();
    let path = folder.file("events.db");
    let broker = Broker::builder().provider(Sqlite::new(&path).open().expect("it opens")).start().expect("it starts");
    let (sender, calls) = channel();
    broker
        .subscribe_with(SubscribeOptions::new("*").name("all"), move |delivery| {
            // The receiver is dropped when the test has ended.
            let _ = sender.send(delivery.event().id().to_string());
        })
        .expect("a subscription");
    let other = Connection::open(&path).expect("it opens");
    other
        .execute_batch(
            "INSERT INTO events (id, source, type, payload) VALUES
             ('a', 'database', 'good.it', '1'), ('b', 'database', 'a type with spaces', '1'),
             ('c', 'database', 'good.it', 'no JSON'), ('d', 'nowhere', 'good.it', '1'), ('e', 'database', 'good.it', '1')",
        )
        .expect("some rows");
    // Events without a key arrive in any order.
    let good = [(); 2].map(|()| calls.recv_timeout(PATIENCE).expect("it is delivered"));
    assert_eq!(BTreeSet::from(good), ["a", "e"].map(str::to_owned).into());
    assert!(broker.stop(PATIENCE).is_clean());
    let page = broker.list(&Filter::default()).expect("it answers").events;
    let shown: Vec<_> = page.iter().map(|event| (event.id().to_string(), event.status())).collect();
    assert_eq!(shown, [("a".to_owned(), Status::Completed), ("e".to_owned(), Status::Completed)]);
    let query = "SELECT group_concat(id || ' ' || status || ' ' || (error IS NOT NULL)) FROM events WHERE status <> 'completed'";
    let rest: String = other.query_row(query, [], |row| row.get(0)).expect("a text");
    assert_eq!(rest, "b failed 1,c failed 1,d failed 1");
}

#[test]
fn an_outbox_checks_its_table() {
    Outbox::new("my_events").expect("a name");
    let error = Outbox::new("my\"events").expect_err("no name");
    assert!(error.to_string().contains("table_name"), "{error}");
}

#[test]
fn the_statement_stores_the_same_event_through_any_client() {
    let folder = Folder::new();
    let broker = Broker::builder().provider(Sqlite::new(folder.file("events.db")).open().expect("it opens"));
    let broker = broker.start().expect("it starts");
    let (sender, calls) = channel();
    broker
        .subscribe_with(SubscribeOptions::new("shop.**").name("all"), move |delivery| {
            // The receiver is dropped when the test has ended.
            let _ = sender.send(delivery.event().clone());
        })
        .expect("a subscription");
    let event = Event::builder(Source::Frontend, "shop.orders.create")
        .payload_json(r#"{ "kept" : "as it is" }"#)
        .metadata("nested", serde_json::json!([1, {"a": null}]))
        .user_id(i64::MIN)
        .session_id("it's")
        .key("k")
        .build()
        .expect("a valid event");
    let outbox = Outbox::new("events").expect("a name");
    let (sql, values) = outbox.statement(&event);
    // Another client binds the values with the types of its own library.
    let values = values.map(|value| match value {
        SqlValue::Null => Value::Null,
        SqlValue::Integer(number) => Value::Integer(number),
        SqlValue::Text(text) => Value::Text(text.into_owned()),
    });
    let other = Connection::open(folder.file("events.db")).expect("it opens");
    other.busy_timeout(PATIENCE).expect("a setting");
    assert_eq!(other.execute(sql, rusqlite::params_from_iter(&values)), Ok(1));
    let handled = calls.recv_timeout(PATIENCE).expect("it is delivered");
    assert!(handled.same_content(&event), "{handled:?} {event:?}");
    assert_eq!(handled.payload().as_str(), event.payload().as_str());
    assert_eq!(other.execute(sql, rusqlite::params_from_iter(&values)), Ok(0), "its id is known");
    assert!(broker.stop(PATIENCE).is_clean());
}
