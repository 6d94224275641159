//! Settings and rights of roles: they make no difference, or opening is refused with their name.

use std::sync::mpsc::channel;

use eventbroker::query::Filter;
use eventbroker::{Broker, Event, Source, Status, SubscribeOptions};
use eventbroker_conformance::pgbouncer::PgBouncer;
use eventbroker_conformance::watch::{PATIENCE, wait_until};
use eventbroker_sql::{OpenError, Pooler, Postgres};
use postgres::{Client, NoTls};

/// Settings that make no difference. The server is of version 14 or later.
const HARMLESS: [(&str, &str); 20] = [
    ("default_transaction_isolation", "serializable"),
    ("default_transaction_deferrable", "on"),
    ("statement_timeout", "500ms"),
    ("lock_timeout", "1ms"),
    ("idle_in_transaction_session_timeout", "1ms"),
    ("idle_session_timeout", "3s"),
    ("row_security", "off"),
    ("standard_conforming_strings", "off"),
    ("client_encoding", "LATIN1"),
    ("TimeZone", "Asia/Kathmandu"),
    ("DateStyle", "German, DMY"),
    ("IntervalStyle", "sql_standard"),
    ("synchronous_commit", "off"),
    ("array_nulls", "off"),
    ("bytea_output", "escape"),
    ("transform_null_equals", "on"),
    ("client_min_messages", "debug1"),
    ("enable_indexscan", "off"),
    ("enable_nestloop", "off"),
    ("plan_cache_mode", "force_generic_plan"),
];
const EVENTS: usize = 200;

/// A database, its owner's client, and the address of a new role that may make tables.
fn with_role(settings: &[(&str, &str)]) -> (String, Client, String) {
    let url = super::server().database();
    let mut owner = Client::connect(&url, NoTls).expect("it connects");
    let role = format!("role_{}", url.rsplit('/').next().expect("a database"));
    owner.batch_execute(&format!("CREATE ROLE {role} LOGIN; GRANT CREATE ON SCHEMA public TO {role}")).expect("a role");
    for (name, value) in settings {
        owner.batch_execute(&format!("ALTER ROLE {role} SET {name} = {value:?}").replace('"', "'")).expect("a setting");
    }
    let of_role = url.replace("postgres@", &format!("{role}@"));
    (role, owner, of_role)
}

fn refusal(url: &str) -> String {
    let error = Postgres::new(url).open().expect_err("it is refused");
    assert!(matches!(error, OpenError::Schema(_)), "{error:?}");
    error.to_string()
}

/// Two brokers on one subscription handle events of few keys, without an error.
fn work(postgres: &Postgres) {
    let start = || Broker::builder().provider(postgres.open().expect("it opens")).start().expect("it starts");
    let brokers = [start(), start()];
    let (sender, calls) = channel();
    for broker in &brokers {
        let sender = sender.clone();
        // The receiver is dropped when the test has ended.
        let options = SubscribeOptions::new("*").name("all").concurrency(4);
        broker
            .subscribe_with(options, move |delivery| _ = sender.send(delivery.event().payload().as_str().to_owned()))
            .expect("known");
    }
    std::thread::scope(|scope| {
        for broker in &brokers {
            scope.spawn(move || {
                for number in 0..EVENTS / 2 {
                    let keyed = Event::builder(Source::System, "roles.it").payload(&"Zoë \\ 'q'");
                    let keyed = keyed.key(format!("k{}", number % 3)).build().expect("a valid event");
                    broker.publish(keyed).expect("it is accepted");
                }
            });
        }
    });
    for _ in 0..EVENTS {
        assert_eq!(calls.recv_timeout(PATIENCE).as_deref(), Ok("\"Zoë \\\\ 'q'\""));
    }
    let completed = Filter { status: Some(Status::Completed), limit: Some(EVENTS), ..Filter::default() };
    for broker in &brokers {
        wait_until("all are completed", || broker.list(&completed).is_ok_and(|page| page.events.len() == EVENTS));
        assert_eq!(broker.stats().bridge.and_then(|bridge| bridge.last_error), None);
        assert!(broker.stop(PATIENCE).is_clean());
    }
}

#[test]
fn settings_of_a_role_make_no_difference() {
    let (_, _, url) = with_role(&HARMLESS);
    work(&Postgres::new(url));
}

#[test]
fn settings_of_a_role_make_no_difference_behind_a_pooler() {
    let (role, _, url) = with_role(&HARMLESS);
    let pooler = PgBouncer::as_role(super::server(), &role);
    work(&Postgres::new(pooler.through(&url)).pooler(Pooler::True));
}

#[test]
fn tables_are_made_in_the_first_schema_of_the_search_path() {
    let (role, mut owner, url) = with_role(&[("search_path", "broker")]);
    assert!(refusal(&url).starts_with("search_path: is \"broker\", a schema"));
    owner.batch_execute(&format!("CREATE SCHEMA broker AUTHORIZATION {role}")).expect("its owner may");
    work(&Postgres::new(&url));
    owner.query_one("SELECT 1 FROM broker.events LIMIT 1", &[]).expect("they are there");
}

#[test]
fn settings_that_would_lose_events_are_named() {
    let (_, _, url) = with_role(&[("session_replication_role", "replica")]);
    assert_eq!(
        refusal(&url),
        "session_replication_role: is replica, so no trigger makes deliveries; origin is required"
    );
    let (_, _, url) = with_role(&[("default_transaction_read_only", "on")]);
    assert!(refusal(&url).starts_with("transaction_read_only: is on"));
}

/// The error has the statement that grants what is missing.
#[test]
fn a_role_that_may_not_execute_the_functions_is_told_what_to_grant() {
    let (role, mut owner, url) = with_role(&[]);
    owner.batch_execute("ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC").expect("a setting");
    Postgres::new(super::server().url(url.rsplit('/').next().expect("a database"))).open().expect("the owner opens it");
    owner
        .batch_execute(&format!(
            "GRANT SELECT, INSERT, UPDATE, DELETE ON events, events_subscriptions, events_deliveries, events_instances, events_meta TO {role};
             GRANT USAGE ON SEQUENCE events_position_seq, events_subscriptions_id_seq, events_dead_letters TO {role}"
        ))
        .expect("rights");
    let error = refusal(&url);
    let grant = error.strip_prefix("permission denied: ").and_then(|rest| rest.strip_suffix(" is required"));
    let grant = grant.unwrap_or_else(|| panic!("{error}"));
    assert!(
        grant.contains("events_claim(") && grant.contains("events_settle(") && !grant.contains("_deliver("),
        "{grant}"
    );
    owner.batch_execute(grant).expect("the statement that was named");
    work(&Postgres::new(&url));
}
