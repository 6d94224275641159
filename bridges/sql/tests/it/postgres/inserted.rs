//! A row that any program inserts is an event like any other, and transactions may commit in any order.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::query::Filter;
use eventbroker::{Broker, Event, Source, Status, SubscribeOptions};
use eventbroker_sql::postgres::{Outbox, publish_in};
use eventbroker_sql::{Postgres, SqlValue};
use postgres::{Client, NoTls};

const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_secs(1);

fn database() -> String {
    super::server().database()
}

fn client(url: &str) -> Client {
    Client::connect(url, NoTls).expect("it connects")
}

fn start(url: &str) -> Broker {
    Broker::builder()
        .provider(Postgres::new(url).poll_interval(POLL).open().expect("it opens"))
        .start()
        .expect("it starts")
}

/// A broker with a subscription to all events, and the events that the subscription receives.
fn listening(url: &str) -> (Broker, Receiver<Event>) {
    let broker = start(url);
    let (sender, calls) = channel();
    broker
        .subscribe_with(SubscribeOptions::new("*").name("all"), move |delivery| {
            // The receiver is dropped when the test has ended.
            let _ = sender.send(delivery.event().clone());
        })
        .expect("a subscription");
    (broker, calls)
}

#[test]
fn a_plain_insert_is_delivered_with_its_values_and_defaults() {
    let url = database();
    let (broker, calls) = listening(&url);
    let insert = "INSERT INTO events (id, source, type, payload, key) VALUES
         ('from-elsewhere', 'database', 'public.users.create', '{\"name\": \"Ada\"}', 'ada')";
    client(&url).batch_execute(insert).expect("a row");
    let event = calls.recv_timeout(PATIENCE).expect("it is delivered");
    assert_eq!((event.id().to_string().as_str(), event.source()), ("from-elsewhere", Source::Database));
    assert_eq!((event.payload().as_str(), event.key()), ("{\"name\": \"Ada\"}", Some("ada")));
    assert_eq!((event.schema(), event.entity(), event.operation()), (Some("public"), Some("users"), Some("create")));
    assert!(event.created_at().elapsed().is_ok_and(|age| age < PATIENCE));
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_row_that_is_not_an_event_fails_by_itself() {
    let url = database();
    let (broker, calls) = listening(&url);
    let mut other = client(&url);
    let insert = "INSERT INTO events (id, source, type, payload) VALUES ('a', 'database', 'good.it', '1'),
         ('b', 'database', 'a type with spaces', '1'), ('d', 'nowhere', 'good.it', '1'), ('e', 'database', 'good.it', '1')";
    other.batch_execute(insert).expect("some rows");
    // Events without a key arrive in any order.
    let good = [(); 2].map(|()| calls.recv_timeout(PATIENCE).expect("it is delivered").id().to_string());
    assert_eq!(BTreeSet::from(good), ["a", "e"].map(str::to_owned).into());
    assert!(broker.stop(PATIENCE).is_clean());
    let page = broker.list(&Filter::default()).expect("it answers").events;
    let shown: Vec<_> = page.iter().map(|event| (event.id().to_string(), event.status())).collect();
    assert_eq!(shown, [("a".to_owned(), Status::Completed), ("e".to_owned(), Status::Completed)]);
    let query = "SELECT string_agg(id || ' ' || status || ' ' || (error IS NOT NULL), ',' ORDER BY id) FROM events \
         WHERE status <> 'completed'";
    let rest: String = other.query_one(query, &[]).expect("a row").get(0);
    assert_eq!(rest, "b failed true,d failed true");
}

#[test]
fn committed_events_arrive_and_rolled_back_ones_do_not() {
    let url = database();
    let (broker, calls) = listening(&url);
    let mut other = client(&url);
    let mut committed = BTreeSet::new();
    for number in 0..60_u64 {
        let event = Event::builder(Source::Database, "work.order").payload(&number).build().expect("a valid event");
        let mut transaction = other.transaction().expect("a transaction");
        assert_eq!(publish_in(&mut transaction, &event), Ok(true));
        assert_eq!(publish_in(&mut transaction, &event), Ok(false), "its id is known");
        if number % 3 == 0 {
            transaction.rollback().expect("it is rolled back");
        } else {
            transaction.commit().expect("it is committed");
            committed.insert(event.id().to_string());
        }
    }
    let came: BTreeSet<String> =
        committed.iter().map(|_| calls.recv_timeout(PATIENCE).expect("it is delivered").id().to_string()).collect();
    assert_eq!(came, committed);
    assert!(broker.stop(PATIENCE).is_clean());
    assert_eq!(calls.try_iter().count(), 0, "and nothing else");
}

/// Fifty concurrent writers commit at varying times beside an idle transaction that has inserted a row.
#[test]
fn nothing_is_lost_when_transactions_commit_out_of_order_beside_an_idle_one() {
    const WRITERS: usize = 50;
    const EACH: usize = 20;
    let url = database();
    let (broker, calls) = listening(&url);
    let mut idle = client(&url);
    let mut open = idle.transaction().expect("a transaction");
    let kept_back = Event::builder(Source::System, "idle.it").build().expect("a valid event");
    publish_in(&mut open, &kept_back).expect("it is stored");
    let stored = Instant::now();
    let oldest = || broker.back_end_stats().expect("it answers").oldest_transaction;
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let url = &url;
            scope.spawn(move || {
                let mut client = client(url);
                for number in 0..EACH {
                    let mut transaction = client.transaction().expect("a transaction");
                    let event = Event::builder(Source::System, "work.it").payload(&(writer, number)).build();
                    publish_in(&mut transaction, &event.expect("a valid event")).expect("it is stored");
                    // The transactions commit in another order than that of the positions.
                    thread::sleep(Duration::from_micros((writer * 7919 + number * 104_729) as u64 % 4_000));
                    transaction.commit().expect("it is committed");
                }
            });
        }
    });
    let all_committed = Instant::now();
    let came: BTreeSet<String> =
        (0..WRITERS * EACH).map(|_| calls.recv_timeout(PATIENCE).expect("it is delivered").id().to_string()).collect();
    let took = all_committed.elapsed();
    assert_eq!(came.len(), WRITERS * EACH);
    assert!(took < POLL + Duration::from_millis(500), "the last came {took:?} after its commit");
    let so_long = stored.elapsed();
    let age = oldest().expect("one is open");
    assert!(so_long < age && age < so_long + PATIENCE, "{age:?}, at least {so_long:?}");
    open.commit().expect("it is committed");
    assert_eq!(calls.recv_timeout(PATIENCE).expect("it is delivered").id(), kept_back.id());
    // The transactions of other tests are younger.
    assert!(oldest().is_none_or(|left| left < age));
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_subscription_that_starts_in_the_past_gets_the_events_of_open_transactions() {
    let url = database();
    let broker = start(&url);
    let mut other = client(&url);
    let mut open = other.transaction().expect("a transaction");
    let late = Event::builder(Source::System, "late.it").build().expect("a valid event");
    publish_in(&mut open, &late).expect("it is stored");
    let early = broker.publish(Event::builder(Source::System, "early.it").build().expect("a valid event"));
    let early = early.expect("it is accepted").id;
    let (sender, calls) = channel();
    let options = SubscribeOptions::new("*").name("all").start(eventbroker::StartPosition::Earliest);
    broker
        .subscribe_with(options, move |delivery| _ = sender.send(delivery.event().id().clone()))
        .expect("a subscription");
    assert_eq!(calls.recv_timeout(PATIENCE).expect("it is delivered"), early);
    open.commit().expect("it is committed");
    assert_eq!(&calls.recv_timeout(PATIENCE).expect("it is delivered"), late.id());
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn an_outbox_checks_its_table() {
    Outbox::new("my_events").expect("a name");
    let error = Outbox::new("my\"events").expect_err("no name");
    assert!(error.to_string().contains("table_name"), "{error}");
}

/// A member that has just lost its lease may still hold the row's lock when the next member claims.
#[test]
fn while_a_row_is_locked_the_later_rows_of_its_key_wait() {
    let url = database();
    let broker = start(&url);
    let options = || SubscribeOptions::new("*").name("all");
    let absent = broker.subscribe_with(options(), |_| ()).expect("a subscription");
    broker.unsubscribe(absent).expect("it is there");
    let publish = |key: Option<&str>| {
        let event = Event::builder(Source::System, "in.order");
        let event = key.into_iter().fold(event, |event, key| event.key(key)).build().expect("a valid event");
        broker.publish(event).expect("it is accepted").id
    };
    let [first, second, other] = [Some("k"), Some("k"), Some("other")].map(publish);
    let mut holder = client(&url);
    let mut held = holder.transaction().expect("a transaction");
    let lock = "SELECT 1 FROM events_deliveries d JOIN events e USING (position) WHERE e.id = $1 FOR UPDATE OF d";
    assert_eq!(held.query(lock, &[&first.to_string()]).expect("it is locked").len(), 1);
    let (sender, calls) = channel();
    // The receiver is dropped when the test has ended.
    broker
        .subscribe_with(options(), move |delivery| _ = sender.send(delivery.event().id().clone()))
        .expect("it is free");
    let next = || calls.recv_timeout(PATIENCE).expect("it is delivered");
    assert_eq!(next(), other);
    // All deliveries that can be claimed before `later` have been claimed.
    let later = publish(None);
    assert_eq!(next(), later);
    held.rollback().expect("it is over");
    assert_eq!([next(), next()], [first, second]);
    assert!(broker.stop(PATIENCE).is_clean());
}

/// The client executes the statement with text and integer parameters only.
#[test]
fn the_statement_stores_the_same_event_through_any_client() {
    let url = database();
    let (broker, calls) = listening(&url);
    let outbox = Outbox::new("events").expect("a name");
    let event = Event::builder(Source::Database, "shop.stock.update")
        .payload(&"it's 7")
        .user_id(7)
        .session_id("s")
        .key("k")
        .metadata("m", 1)
        .created_at(std::time::SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789))
        .build()
        .expect("a valid event");
    let (sql, values) = outbox.statement(&event);
    let mut other = client(&url);
    let statement = other.prepare(sql).expect("it is understood");
    let types: Vec<&str> = statement.params().iter().map(|it| it.name()).collect();
    let is_number = |value: &SqlValue<'_>, name: &str| match value {
        SqlValue::Integer(_) => name == "int8",
        SqlValue::Text(_) => name == "text",
        _ => true,
    };
    assert!(values.iter().zip(&types).all(|(value, name)| is_number(value, name)), "{types:?}");
    let numbers: Vec<Option<i64>> =
        values.iter().map(|it| if let SqlValue::Integer(number) = it { Some(*number) } else { None }).collect();
    let texts: Vec<Option<&str>> =
        values.iter().map(|it| if let SqlValue::Text(text) = it { Some(&**text) } else { None }).collect();
    let bound: Vec<&(dyn postgres::types::ToSql + Sync)> = types
        .iter()
        .enumerate()
        .map(
            |(at, name)| {
                if *name == "int8" { &numbers[at] as &(dyn postgres::types::ToSql + Sync) } else { &texts[at] }
            },
        )
        .collect();
    let mut transaction = other.transaction().expect("a transaction");
    assert_eq!(transaction.query(&statement, &bound).expect("it is stored").len(), 1);
    assert_eq!(transaction.query(&statement, &bound).expect("it is known").len(), 0);
    let committed = Instant::now();
    transaction.commit().expect("it is committed");
    let came = calls.recv_timeout(PATIENCE).expect("it is delivered");
    assert!(committed.elapsed() < POLL, "a notification came");
    assert!(came.same_content(&event) && came.created_at() == event.created_at(), "{came:?}");
    assert!(broker.stop(PATIENCE).is_clean());
}
