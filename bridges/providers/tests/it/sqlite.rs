//! `provider: database` with a `sqlite:` URL: events survive the broker.

use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use eventbroker::{Event, Source, SubscribeOptions};
use eventbroker_providers::{Config, Loader, OpenError, open, start};

const PATIENCE: Duration = Duration::from_secs(10);

fn config(section: &str) -> Config {
    let section = format!("event_broker: {{ enabled: true, provider: database, {section} }}");
    Loader::new().yaml("c.yaml", section).environment([]).load().expect("accepted").config
}

#[test]
fn an_event_waits_in_the_file_for_the_next_broker() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("events.db");
    for scheme in ["sqlite:", "sqlite://"] {
        let url = format!("{scheme}{}", file.display());
        let config = config(&format!("database: {{ url: '{url}', table_name: shop_events, consumer_group: workers }}"));
        let first = start(&config).expect("it opens");
        first.subscribe_with(SubscribeOptions::new("a.b.c").name("once"), |_| ()).expect("subscribed");
        first.stop(PATIENCE);
        let second = start(&config).expect("it opens");
        let event = Event::builder(Source::System, "a.b.c").build().expect("valid");
        let id = second.publish(event).expect("the file holds it").id;
        second.stop(PATIENCE);
        let third = start(&config).expect("it opens");
        let (sender, received) = channel();
        third
            .subscribe_with(SubscribeOptions::new("a.b.c").name("once"), move |delivery| {
                // The receiver is dropped when the test has ended.
                let _ = sender.send(delivery.event().id().clone());
            })
            .expect("subscribed");
        assert_eq!(received.recv_timeout(PATIENCE), Ok(id), "{scheme}");
        third.stop(PATIENCE);
    }
    assert!(file.exists());
}

#[test]
fn what_it_cannot_open_is_an_error() {
    let nowhere = open(&config("database: { url: 'sqlite:/no/such/folder/x.db' }")).expect_err("refused");
    assert!(matches!(nowhere, OpenError::Database(_)) && nowhere.to_string().contains("/no/such/folder"), "{nowhere}");
}

#[test]
fn a_buffered_publish_is_accepted_while_somebody_else_holds_the_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let url = format!("sqlite:{}", folder.path().join("events.db").display());
    let broker = start(&config(&format!("confirm: buffered, database: {{ url: '{url}' }}"))).expect("it opens");
    let holder = rusqlite::Connection::open(folder.path().join("events.db")).expect("it opens");
    holder.execute_batch("BEGIN IMMEDIATE").expect("nobody writes");
    let event = Event::builder(Source::System, "a.b.c").build().expect("valid");
    let id = broker.publish(event).expect("the buffer holds it").id;
    holder.execute_batch("ROLLBACK").expect("it held the lock");
    assert!(broker.stop(PATIENCE).is_clean());
    let held: i64 = holder
        .query_row("SELECT count(*) FROM events WHERE id = ?1", [id.to_string()], |row| row.get(0))
        .expect("a count");
    assert_eq!(held, 1);
}

#[test]
fn a_completed_event_goes_when_the_configured_retention_is_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("events.db");
    let url = format!("url: 'sqlite:{}'", file.display());
    let days = start(&config(&format!("database: {{ {url} }}"))).expect("it opens");
    // No subscription matches the event, so it is completed at once.
    days.publish(Event::builder(Source::System, "a.b.c").build().expect("valid")).expect("the file holds it");
    assert!(days.stop(PATIENCE).is_clean());
    let moment = start(&config(&format!("database: {{ {url}, retention: 1ms }}"))).expect("it opens");
    let connection = rusqlite::Connection::open(file).expect("it opens");
    let held = || connection.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0)).expect("a count");
    let deadline = Instant::now() + PATIENCE;
    while held() > 0 {
        assert!(Instant::now() < deadline, "it is still there");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(moment.stop(PATIENCE).is_clean());
}
