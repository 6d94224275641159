//! Housekeeping on SQLite: ended events are removed after the retention and open ones stay, subscriptions of dead
//! brokers are removed, and the backlog is bounded.

use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use crate::support::Folder;
use eventbroker::error::FullLimit;
use eventbroker::{
    Broker, Event, EventId, HandlerError, PublishError, RetryPolicy, Scope, Source, Status, SubscribeOptions,
};
use eventbroker_conformance::watch::{PATIENCE, event, wait_until};
use eventbroker_sql::Sqlite;
use rusqlite::Connection;

fn start(sqlite: &Sqlite) -> Broker {
    Broker::builder().provider(sqlite.open().expect("it opens")).start().expect("it starts")
}

fn status(broker: &Broker, id: &EventId) -> Option<Status> {
    broker.get(id).expect("it answers").map(|event| event.status())
}

fn count(connection: &Connection, query: &str) -> i64 {
    connection.query_row(query, [], |row| row.get(0)).expect("a count")
}

#[test]
fn ended_events_are_removed_after_the_retention_and_open_ones_stay() {
    let folder = Folder::new();
    let sqlite = Sqlite::new(folder.file("events.db"));
    let broker = start(&sqlite);
    broker
        .subscribe_with(
            SubscribeOptions::new("old.*").name("all").retry(RetryPolicy::none()),
            |delivery| match delivery.event().event_type().as_str() {
                "old.bad" => Err(HandlerError::permanent("it broke")),
                _ => Ok(()),
            },
        )
        .expect("a subscription");
    let id = broker.subscribe_with(SubscribeOptions::new("open.*").name("away"), |_| ()).expect("a subscription");
    broker.unsubscribe(id).expect("it is there");
    let ended = ["old.good", "old.bad"].map(|it| broker.publish(event(it)).expect("it is accepted").id);
    let open = broker.publish(event("open.it")).expect("it is accepted").id;
    wait_until("both have ended", || {
        ended.iter().all(|id| matches!(status(&broker, id), Some(Status::Completed | Status::Failed)))
    });
    broker.stop(PATIENCE);
    let again = start(&sqlite);
    again.subscribe_with(SubscribeOptions::new("other.*").name("other"), |_| ()).expect("a subscription");
    let new = again.publish(event("nobody.listens")).expect("it is accepted").id;
    assert!(ended.iter().all(|id| status(&again, id).is_some()), "they are kept for days");
    again.stop(PATIENCE);
    let short = start(&sqlite.retention(Duration::ZERO));
    short.subscribe_with(SubscribeOptions::new("other.*").name("other"), |_| ()).expect("a subscription");
    wait_until("what has ended is gone", || ended.iter().chain([&new]).all(|id| status(&short, id).is_none()));
    assert_eq!(status(&short, &open), Some(Status::Pending));
    let connection = Connection::open(folder.file("events.db")).expect("it opens");
    assert_eq!(count(&connection, "SELECT count(*) FROM events_deliveries"), 1, "their deliveries went with them");
    short.stop(PATIENCE);
}

#[test]
fn many_expired_events_are_removed_at_once_without_a_subscription() {
    let folder = Folder::new();
    let sqlite = Sqlite::new(folder.file("events.db"));
    let broker = start(&sqlite);
    let accepted = broker.publish_batch((0..5_000).map(|_| event("nobody.listens")));
    assert!(accepted.iter().all(Result::is_ok));
    broker.stop(PATIENCE);
    let short = start(&sqlite.retention(Duration::ZERO));
    let connection = Connection::open(folder.file("events.db")).expect("it opens");
    wait_until("all are gone", || count(&connection, "SELECT count(*) FROM events") == 0);
    short.stop(PATIENCE);
}

#[test]
fn a_broadcast_subscription_is_removed_with_its_broker_and_with_a_dead_one() {
    let folder = Folder::new();
    let sqlite = Sqlite::new(folder.file("events.db")).lease_time(Duration::from_millis(200));
    let (one, two) = (start(&sqlite), start(&sqlite));
    let wide = || SubscribeOptions::new("wide.*").name("wide").scope(Scope::Broadcast);
    let (sender, calls) = channel();
    for broker in [&one, &two] {
        let sender = sender.clone();
        // The receiver is dropped when the test has ended.
        broker.subscribe_with(wide(), move |_| _ = sender.send(())).expect("a subscription");
    }
    let connection = Connection::open(folder.file("events.db")).expect("it opens");
    connection.busy_timeout(PATIENCE).expect("a setting");
    let subscriptions = || count(&connection, "SELECT count(*) FROM events_subscriptions");
    assert_eq!(subscriptions(), 2);
    one.publish(event("wide.it")).expect("it is accepted");
    (0..2).for_each(|_| calls.recv_timeout(PATIENCE).expect("each is called"));
    two.stop(PATIENCE);
    assert_eq!(subscriptions(), 1, "the one of the broker that stopped is gone");
    connection
        .execute_batch(
            "INSERT INTO events_subscriptions (member_of, name, pattern, final_rest, dots, glob, owner, alive_until)
             VALUES ('resolvespec-workers', 'wide at a dead one', '*', 1, 0, '*', 'a dead one', 0)",
        )
        .expect("a row");
    wait_until("the one of the dead is gone", || subscriptions() == 1);
    // Longer than ten leases: the running broker extends `alive_until` of its subscription.
    thread::sleep(Duration::from_millis(2_500));
    one.publish(event("wide.it")).expect("it is accepted");
    calls.recv_timeout(PATIENCE).expect("it is called");
    assert!(one.stop(PATIENCE).is_clean());
    assert_eq!(count(&connection, "SELECT count(*) FROM events_deliveries WHERE state < 2"), 0);
}

#[test]
fn an_unused_subscription_expires_and_a_served_one_stays() {
    let folder = Folder::new();
    let sqlite = Sqlite::new(folder.file("events.db"));
    let sqlite = sqlite.lease_time(Duration::from_millis(300)).idle_expiry(Duration::from_millis(1_200));
    let wide = || SubscribeOptions::new("idle.*").name("wide").scope(Scope::Broadcast).durable();
    let away =
        Broker::builder().instance_id("away").provider(sqlite.open().expect("it opens")).start().expect("it starts");
    away.subscribe_with(wide(), |_| ()).expect("a subscription");
    away.subscribe_with(SubscribeOptions::new("idle.*").name("abandoned"), |_| ()).expect("a subscription");
    assert!(away.stop(PATIENCE).is_clean());
    let here =
        Broker::builder().instance_id("here").provider(sqlite.open().expect("it opens")).start().expect("it starts");
    here.subscribe_with(wide(), |_| ()).expect("a subscription");
    here.subscribe_with(SubscribeOptions::new("idle.*").name("served"), |_| ()).expect("a subscription");
    let names = || {
        let stats = here.back_end_stats().expect("it answers");
        let name = |lag: &eventbroker::stats::SubscriptionLag| (lag.name.clone(), lag.instance.clone());
        stats.subscriptions.iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names().len(), 4, "{:?}", names());
    here.publish(event("idle.it")).expect("it is accepted");
    wait_until("two have expired", || here.back_end_stats().expect("it answers").subscriptions_expired == 2);
    thread::sleep(Duration::from_millis(1_500));
    let kept = [("served".to_owned(), None), ("wide".to_owned(), Some("here".to_owned()))];
    assert_eq!(names(), kept);
    assert!(here.stop(PATIENCE).is_clean());
}

#[test]
fn dead_letters_removed_with_their_events_are_counted_and_replayed_events_stay() {
    let folder = Folder::new();
    let sqlite = Sqlite::new(folder.file("events.db"));
    let broker = start(&sqlite);
    let bad = || SubscribeOptions::new("old.*").name("bad").retry(RetryPolicy::none());
    let id =
        broker.subscribe_with(bad(), |_| Err::<(), _>(HandlerError::permanent("it broke"))).expect("a subscription");
    let [gone, replayed] = [(); 2].map(|()| broker.publish(event("old.it")).expect("it is accepted").id);
    wait_until("both are dead", || broker.dead_letter_count() == Ok(2));
    broker.unsubscribe(id).expect("it is there");
    let mut replay = eventbroker::provider::Replay::of("bad");
    replay.after = Some(gone.clone());
    assert_eq!(broker.replay(&replay).expect("it can").deliveries, 1);
    assert!(broker.stop(PATIENCE).is_clean());
    let short = start(&sqlite.retention(Duration::ZERO));
    short.subscribe_with(SubscribeOptions::new("other.*").name("other"), |_| ()).expect("a subscription");
    wait_until("the first is gone", || status(&short, &gone).is_none());
    let stats = short.back_end_stats().expect("it answers");
    assert_eq!((stats.dead_letters, stats.dead_letters_expired), (0, 1));
    assert_eq!(status(&short, &replayed), Some(Status::Processing), "it waits for its subscription again");
    assert!(short.stop(PATIENCE).is_clean());
}

#[test]
fn every_filter_of_a_listing_has_an_index() {
    let folder = Folder::new();
    let broker = start(&Sqlite::new(folder.file("events.db")));
    let connection = Connection::open(folder.file("events.db")).expect("it opens");
    for column in ["source", "schema", "entity", "operation", "user_id", "instance_id"] {
        let query = format!("EXPLAIN QUERY PLAN SELECT * FROM events e WHERE e.{column} = ?1 ORDER BY e.id LIMIT 100");
        let plan: Vec<String> = {
            let mut statement = connection.prepare(&query).expect("a statement");
            let steps = statement.query_map(["x"], |row| row.get(3)).expect("a plan");
            steps.collect::<Result<_, _>>().expect("a plan")
        };
        assert!(plan.iter().any(|step| step.contains(&format!("({column}=?)"))), "{column}: {plan:?}");
        assert!(!plan.iter().any(|step| step.contains("TEMP B-TREE")), "{column}: it is sorted by the index: {plan:?}");
    }
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn publishes_are_refused_while_a_backlog_is_full() {
    let folder = Folder::new();
    let sqlite = Sqlite::new(folder.file("events.db")).max_backlog(10);
    let broker = start(&sqlite);
    let reader = || SubscribeOptions::new("much.*").name("reader");
    let absent = broker.subscribe_with(reader(), |_| ()).expect("a subscription");
    broker.unsubscribe(absent).expect("it is there");
    let first = event("much.it");
    for event in [first.clone()].into_iter().chain((1..10).map(|_| event("much.it"))) {
        broker.publish(event).expect("it is accepted");
    }
    wait_until("it is full", || broker.publish(event("another.it")).is_err());
    let refused = event("another.it");
    let error = broker.publish(refused.clone()).expect_err("it is full");
    assert!(matches!(&error, PublishError::Full { limit: FullLimit::Backlog { max: 10 }, .. }), "{error}");
    assert!(error.to_string().contains("max_backlog 10"), "{error}");
    assert_eq!(status(&broker, refused.id()), None);
    // The other broker does not have the event in its own store.
    let other = start(&sqlite);
    wait_until("it is full there too", || other.publish(event("another.it")).is_err());
    let again = other.publish(first.clone()).expect("it is stored already");
    assert!(again.duplicate);
    let changed = Event::builder(Source::System, "much.it").id(first.id().to_string()).payload(&1).build();
    let conflict = other.publish(changed.expect("a valid event")).expect_err("it is another one");
    assert!(matches!(conflict, PublishError::IdConflict { .. }), "{conflict}");
    broker.subscribe_with(reader(), |_| ()).expect("it is free");
    wait_until("there is room again", || broker.publish(refused.clone()).is_ok());
    assert!(broker.stop(PATIENCE).is_clean());
    assert!(other.stop(PATIENCE).is_clean());
}

#[test]
fn max_backlog_is_at_least_one() {
    let folder = Folder::new();
    let error = Sqlite::new(folder.file("events.db")).max_backlog(0).open().expect_err("nothing could be stored");
    assert!(error.to_string().contains("max_backlog"), "{error}");
}
