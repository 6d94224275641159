//! Faults of a server, a role or a setting. The error names the fault and shows no secret, no event is lost, and
//! nothing panics.

use std::sync::mpsc::channel;
use std::time::Duration;

use eventbroker::{Broker, Event, PublishError, Source, SubscribeOptions};
use eventbroker_conformance::postgres::PASSWORD;
#[cfg(feature = "tls")]
use eventbroker_conformance::postgres::Server;
use eventbroker_conformance::watch::PATIENCE;
use eventbroker_sql::Postgres;
use eventbroker_sql::postgres::OpenError;
use postgres::{Client, NoTls};

use super::server;

fn client(url: &str) -> Client {
    Client::connect(url, NoTls).expect("it connects")
}

fn refusal(postgres: &Postgres) -> OpenError {
    postgres.open().expect_err("it is refused")
}

fn event() -> Event {
    Event::builder(Source::System, "trouble.it").build().expect("a valid event")
}

fn start(url: &str) -> Broker {
    let mut config = eventbroker::Config::default();
    config.sync_timeout = Duration::from_millis(500);
    let provider = Postgres::new(url).open().expect("it opens");
    Broker::builder().config(config).provider(provider).start().expect("it starts")
}

#[test]
fn a_wrong_password_is_reported_without_showing_it() {
    let url = server().database();
    let error = refusal(&Postgres::new(server().tcp(&url, "wr0ng-password")));
    assert!(matches!(error, OpenError::Unavailable(_)), "{error:?}");
    let text = format!("{error} {error:?}");
    assert!(text.contains("127.0.0.1") && text.contains("password authentication failed"), "{text}");
    assert!(!text.contains("wr0ng"), "{text}");
    let right = Postgres::new(server().tcp(&url, PASSWORD));
    assert!(!format!("{right:?}").contains(PASSWORD));
    right.open().expect("the right one will do");
}

#[test]
fn a_malformed_address_is_refused_without_showing_its_secrets() {
    let addresses = [
        "mysql://u:s3cret@localhost/x",
        "postgres://u:s3cret@localhost:port/x",
        "postgres://u:s3cret@localhost/x?s3cret",
        "postgres://u:s3cret@localhost/x?sslmode=s3cret",
        "postgres://u:s3cret@localhost/x?no_such=s3cret",
        "postgres:///x?password=s3cret",
    ];
    for address in addresses {
        let error = refusal(&Postgres::new(address));
        assert!(matches!(error, OpenError::Setting(_)), "{error:?}");
        assert!(error.to_string().starts_with("url: ") && !error.to_string().contains("s3cret"), "{error}");
    }
}

/// The server has no TLS, so an address with `sslmode=require` is refused and no password is sent in plain text.
#[test]
fn a_password_goes_to_another_machine_only_over_tls() {
    let url = server().database();
    let near = server().tcp(&url, PASSWORD);
    let error = refusal(&Postgres::new(format!("{near}?sslmode=require"))).to_string();
    assert!(error.to_lowercase().contains("tls"), "{error}");
    Postgres::new(format!("{near}?sslmode=disable")).open().expect("in the clear, as asked for");
}

#[cfg(feature = "tls")]
#[test]
fn a_server_is_known_by_its_certificate_and_its_name() {
    let server = Server::start();
    let url = server.database();
    let roots = server.speak_tls();
    let stranger = server.certificate("stranger").certificate;
    let at = |host: &str, roots: &std::path::Path| {
        let tcp = server.tcp(&url, PASSWORD).replace("127.0.0.1", host);
        Postgres::new(format!("{tcp}?sslmode=require&sslrootcert={}", roots.display()))
    };
    let is_ready = || client(&url).query_one("SHOW ssl", &[]).is_ok_and(|row| row.get::<_, String>(0) == "on");
    eventbroker_conformance::watch::wait_until("it speaks TLS", is_ready);
    let error = refusal(&at("localhost", &stranger)).to_string();
    assert!(error.contains("localhost") && error.to_lowercase().contains("certificate"), "{error}");
    let error = refusal(&at("127.0.0.1", &roots)).to_string();
    assert!(error.to_lowercase().contains("certificate"), "of another name: {error}");
    let broker = Broker::builder().provider(at("localhost", &roots).open().expect("it opens")).start();
    let broker = broker.expect("it starts");
    let (sender, calls) = channel();
    let options = SubscribeOptions::new("*").name("all");
    broker.subscribe_with(options, move |delivery| _ = sender.send(delivery.event().id().clone())).expect("known");
    let id = broker.publish(event()).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(id));
    let in_the_clear = "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl) FROM pg_stat_ssl \
         JOIN pg_stat_activity USING (pid) WHERE application_name = 'eventbroker'";
    let row = client(&url).query_one(in_the_clear, &[]).expect("two counts");
    let (secret, open): (i64, i64) = (row.get(0), row.get(1));
    assert!(secret >= 2 && open == 0, "{secret} connections by TLS, {open} in the clear");
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn settings_out_of_bounds_are_named() {
    let url = server().database();
    let postgres = || Postgres::new(&url);
    for name in ["", "a\"b", "a'; DROP TABLE x; --", "a b", "1st", "Events", "täble", &"a".repeat(49)] {
        let error = refusal(&postgres().table_name(name));
        assert!(matches!(error, OpenError::Name(_)), "{error:?}");
        assert!(error.to_string().starts_with("table_name: "), "{error}");
    }
    let error = refusal(&postgres().lease_time(Duration::from_millis(99))).to_string();
    assert_eq!(error, "lease_time: is 99ms, at least 100ms is required");
    let error = refusal(&postgres().idle_expiry(Duration::from_secs(29))).to_string();
    assert_eq!(error, "idle_expiry: is 29s, at least 30s is required");
    let error = refusal(&postgres().consumer_group("")).to_string();
    assert_eq!(error, "consumer_group: is 0 bytes long, 1 to 255 are allowed");
    let error = refusal(&postgres().poll_interval(Duration::ZERO)).to_string();
    assert_eq!(error, "poll_interval: is 0ns, at least 10ms is required");
    let error = refusal(&postgres().channel("x".repeat(64))).to_string();
    assert!(error.starts_with("channel: "), "{error}");
    let tables =
        client(&url).query_one("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", &[]).expect("a count");
    assert_eq!(tables.get::<_, i64>(0), 0, "nothing was made");
}

#[test]
fn values_with_quotes_are_values() {
    let url = server().database();
    let postgres = Postgres::new(&url).consumer_group("g'r\"oup").table_name("my_events").channel("ch\"ann'el");
    let broker = Broker::builder().provider(postgres.open().expect("it opens")).start().expect("it starts");
    let (sender, calls) = channel();
    let options = SubscribeOptions::new("it's.*.\"quo%_ted\"").name("na'me\"; --");
    broker.subscribe_with(options, move |delivery| _ = sender.send(delivery.event().clone())).expect("a subscription");
    let sent = Event::builder(Source::System, "it's.a\\b.\"quo%_ted\"")
        .id("i'd\"")
        .key("k'ey\"")
        .session_id("s'")
        .payload("p'\"\\\u{0}")
        .metadata("m'\"", "v'\"\u{0}")
        .build()
        .expect("a valid event");
    broker.publish(sent.clone()).expect("it is accepted");
    let came = calls.recv_timeout(PATIENCE).expect("it is delivered");
    assert!(came.same_content(&sent), "{came:?}");
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_table_of_another_program_is_left_alone() {
    let url = server().database();
    let mut theirs = client(&url);
    let make =
        "CREATE TABLE events (id VARCHAR(255) PRIMARY KEY, type VARCHAR(255)); INSERT INTO events VALUES ('1', 'a')";
    theirs.batch_execute(make).expect("a table");
    let error = refusal(&Postgres::new(&url)).to_string();
    assert!(error.contains("table_name") && error.contains("position, key, origin"), "{error}");
    let tables = theirs.query_one("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'", &[]).expect("a count");
    assert_eq!(tables.get::<_, i64>(0), 1);
    Postgres::new(&url).table_name("mine").open().expect("another name will do");
}

#[test]
fn tables_of_a_later_version_are_left_alone() {
    let url = server().database();
    Postgres::new(&url).open().expect("it opens");
    client(&url).execute("UPDATE events_meta SET value = 99 WHERE name = 'version'", &[]).expect("a change");
    let error = refusal(&Postgres::new(&url)).to_string();
    assert!(error.contains("version 99"), "{error}");
}

#[test]
fn the_tables_may_be_made_by_hand() {
    let url = server().database();
    let schema = eventbroker_sql::postgres::schema("my_events").expect("a name");
    client(&url).batch_execute(&format!("BEGIN; {schema}; COMMIT")).expect("the tables");
    Postgres::new(&url).table_name("my_events").open().expect("they are as they should be");
}

#[test]
fn several_instances_may_make_the_tables_at_once() {
    let url = server().database();
    std::thread::scope(|scope| {
        let opened: Vec<_> = (0..12).map(|_| scope.spawn(|| Postgres::new(&url).open().map(drop))).collect();
        for opened in opened {
            opened.join().expect("no panic").expect("it opens");
        }
    });
}

/// The documented grants suffice. Without them the error names the missing right.
#[test]
fn a_role_needs_the_rights_that_are_documented_and_no_more() {
    let url = server().database();
    Postgres::new(&url).open().expect("it opens");
    let mut owner = client(&url);
    let database = url.rsplit('/').next().expect("a database");
    let (poor, seller) = (format!("poor_{database}"), format!("seller_{database}"));
    owner.batch_execute(&format!("CREATE ROLE {poor} LOGIN; CREATE ROLE {seller} LOGIN")).expect("two roles");
    let url_of = |role: &str| url.replace("postgres@", &format!("{role}@"));
    let error = refusal(&Postgres::new(url_of(&poor))).to_string();
    assert!(error.contains("permission denied") && error.contains("events"), "{error}");
    owner
        .batch_execute(&format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON events, events_subscriptions, events_deliveries, events_instances, events_meta TO {poor};
             GRANT USAGE ON SEQUENCE events_position_seq, events_subscriptions_id_seq, events_dead_letters TO {poor};
             GRANT INSERT ON events, events_deliveries TO {seller};
             GRANT SELECT ON events, events_subscriptions, events_deliveries TO {seller};
             GRANT UPDATE (status, completed_at) ON events TO {seller};"
        ))
        .expect("rights");
    let broker = start(&url_of(&poor));
    let (sender, calls) = channel();
    let options = SubscribeOptions::new("*").name("all");
    broker
        .subscribe_with(options, move |delivery| _ = sender.send(delivery.event().id().clone()))
        .expect("a subscription");
    let id = broker.publish(event()).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE).expect("it is delivered"), id);
    let mut other = client(&url_of(&seller));
    let mut transaction = other.transaction().expect("a transaction");
    let sold = event();
    assert_eq!(eventbroker_sql::postgres::publish_in(&mut transaction, &sold), Ok(true));
    transaction.commit().expect("it is committed");
    assert_eq!(&calls.recv_timeout(PATIENCE).expect("it is delivered"), sold.id());
    // The right is revoked while the broker runs. The event is stored and delivered once the right is granted again.
    owner.batch_execute(&format!("REVOKE INSERT ON events FROM {poor}")).expect("a right");
    let unknown = broker.publish(event()).expect_err("it can't be stored");
    assert!(matches!(unknown, PublishError::Unknown { .. }), "{unknown}");
    let error = broker.stats().bridge.and_then(|it| it.last_error).expect("an error");
    assert!(error.contains("permission denied"), "{error}");
    owner.batch_execute(&format!("GRANT INSERT ON events TO {poor}")).expect("a right");
    assert_eq!(&calls.recv_timeout(PATIENCE).expect("it is delivered"), unknown.event().id());
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_read_only_server_is_refused() {
    let url = server().database();
    let mut owner = client(&url);
    let database = url.rsplit('/').next().expect("a database");
    owner
        .batch_execute(&format!("ALTER DATABASE {database} SET default_transaction_read_only = on"))
        .expect("a setting");
    let error = refusal(&Postgres::new(&url)).to_string();
    assert!(error.contains("read-only"), "{error}");
}

/// An async program may open, query, stop and drop on its own threads; the connections use other threads.
#[test]
fn a_provider_works_inside_an_async_program() {
    let url = server().database();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        drop(Postgres::new(&url).open().expect("it opens"));
        let broker = start(&url);
        let id = broker.publish(event()).expect("it is accepted").id;
        assert!(broker.get(&id).expect("it answers").is_some());
        assert!(broker.stop(PATIENCE).is_clean());
    });
}
