//! The operator commands, on an SQLite file and on PostgreSQL, Redis and NATS servers that other programs also use.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::support::{Run, command, event, run, signal};
use eventbroker::{Broker, HandlerError, RetryPolicy, SubscribeOptions};
use eventbroker_conformance::{nats, postgres, redis};
use eventbroker_providers::{Config, Loader};
use serde_json::{Value, json};

/// The limit of every wait, generous for a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Servers shared by all tests of this file. They end with the process.
static POSTGRES: LazyLock<postgres::Server> = LazyLock::new(postgres::Server::start);
static REDIS: LazyLock<redis::Server> = LazyLock::new(redis::Server::start);

/// The events of a test: a file in a folder that is removed on drop, or a database of a server.
struct Events {
    folder: PathBuf,
    url: String,
}

/// Runs the check on every back end.
fn on_each(test: &str, check: impl Fn(&Events)) {
    check(&Events::new(test));
    let mut events = Events::new(&format!("{test}-postgres"));
    events.url = POSTGRES.database();
    check(&events);
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut events = Events::new(&format!("{test}-redis"));
    events.url = format!("{}?db={}", REDIS.url(), NEXT.fetch_add(1, Ordering::Relaxed));
    check(&events);
    // A NATS server holds one stream of these subjects, so each check has its own server.
    let server = nats::Server::start();
    let mut events = Events::new(&format!("{test}-nats"));
    events.url = server.url();
    check(&events);
}

impl Events {
    fn new(test: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("operator-{test}-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder for the test");
        let url = format!("sqlite:{}", folder.join("events.db").display());
        Self { folder, url }
    }

    /// Runs a command on the events, with `--json`.
    fn run(&self, arguments: &[&str]) -> Run {
        self.run_with(arguments, "")
    }

    fn run_with(&self, arguments: &[&str], input: &str) -> Run {
        run(&[arguments, &["--json", "--url", &self.url]].concat(), input)
    }

    /// Runs a command that must succeed, and parses the one value that it prints.
    fn value(&self, arguments: &[&str]) -> Value {
        let run = self.run(arguments);
        assert_eq!(run.code, Some(0), "{arguments:?}: {}", run.stderr);
        serde_json::from_str(&run.stdout).expect("JSON")
    }

    fn broker(&self) -> Broker {
        let provider = match self.url.split(':').next() {
            Some("redis+unix") => "redis",
            Some("nats") => "nats",
            _ => "database",
        };
        let text =
            format!("event_broker: {{ enabled: true, provider: {provider}, {provider}: {{ url: '{}' }} }}", self.url);
        let config: Config = Loader::new().yaml("c.yaml", text).environment([]).load().expect("accepted").config;
        eventbroker_providers::start(&config).expect("it starts")
    }

    /// Creates a subscription `fragile` to `shop.**` and `count` dead letters of type `shop.bad.it`.
    fn with_dead_letters(&self, count: usize) {
        let broker = self.broker();
        let options = SubscribeOptions::new("shop.**").name("fragile").retry(RetryPolicy::none());
        let fails = |_: &eventbroker::Delivery<'_>| Err::<(), _>(HandlerError::permanent("it broke"));
        broker.subscribe_with(options, fails).expect("a subscription");
        for _ in 0..count {
            let event = eventbroker::Event::builder(eventbroker::Source::System, "shop.bad.it").build();
            broker.publish(event.expect("valid")).expect("accepted");
        }
        let deadline = Instant::now() + PATIENCE;
        while broker.dead_letter_count() != Ok(count) {
            assert!(Instant::now() < deadline, "they do not die");
            std::thread::sleep(Duration::from_millis(5));
        }
        broker.stop(PATIENCE);
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        // A folder that cannot be removed stays in the target folder.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn what_is_published_is_listed_and_shown_as_it_was_given() {
    on_each("publish", |events| {
        let arguments = [
            "publish",
            "shop.orders.create",
            "--payload",
            r#"{"total":  7}"#,
            "--key",
            "customer-3",
            "--id",
            "order-7",
            "--source",
            "frontend",
            "--user-id",
            "42",
            "--session-id",
            "s",
            "--metadata",
            "trace=\"abc\"",
            "--metadata",
            "note=plain text",
        ];
        assert_eq!(events.value(&arguments), json!({"id": "order-7", "duplicate": false}));
        assert_eq!(events.value(&arguments), json!({"id": "order-7", "duplicate": true}));
        events.value(&["publish", "shop.users.create", "--id", "user-8"]);
        let shown = events.value(&["show", "order-7"]);
        assert_eq!((&shown["type"], &shown["payload"]), (&json!("shop.orders.create"), &json!({"total": 7})));
        assert_eq!((&shown["source"], &shown["user_id"]), (&json!("frontend"), &json!(42)));
        assert_eq!(shown["metadata"], json!({"trace": "abc", "note": "plain text"}));
        assert_eq!(shown["status"], "completed", "nobody listens");
        let listed = events.run(&["list", "--entity", "orders"]).lines();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0]["id"], "order-7");
        assert_eq!(
            events.run(&["list", "--limit", "1"]).lines()[0]["type"],
            "shop.users.create",
            "from the last id on"
        );
        assert_eq!(events.run(&["list", "--status", "failed"]).lines().len(), 0);
        assert_eq!(events.run(&["list", "--to", "1h"]).lines().len(), 0, "none is older than an hour");
        let missing = events.run(&["show", "order-8"]);
        assert_eq!((missing.code, missing.stdout.as_str()), (Some(3), ""));
        let text = run(&["show", "order-7", "--url", &events.url], "");
        assert!(text.stdout.contains("customer-3") && text.stdout.contains(r#"{"total":  7}"#), "{}", text.stdout);
    });
}

#[test]
fn lines_are_published_and_bad_ones_reported_with_their_number() {
    on_each("lines", |events| {
        let input =
            event("a", "shop.orders.create", &json!(1)) + "no event\n" + &event("b", "shop.orders.create", &json!(2));
        let published = events.run_with(&["publish", "--lines"], &input);
        assert_eq!(published.code, Some(6));
        let ids: Vec<Value> = published.lines().iter().map(|line| line["id"].clone()).collect();
        assert_eq!(ids, ["a", "b"]);
        assert!(published.stderr.contains(r#""line":2"#), "{}", published.stderr);
        assert_eq!(events.run_with(&["publish", "--lines"], "").code, Some(0));
    });
}

#[test]
fn tail_shows_events_as_they_come_until_it_is_enough_or_a_signal_comes() {
    on_each("tail", |events| {
        events.value(&["publish", "shop.orders.create", "--id", "before"]);
        let arguments = ["tail", "--pattern", "shop.*.create", "--json", "--from", "earliest", "--url", &events.url];
        let mut child = command(&arguments).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let mut next = || -> Value {
            let line = lines.next().expect("it goes on").expect("a line");
            serde_json::from_str(&line).expect("JSON")
        };
        assert_eq!(next()["id"], "before");
        events.value(&["publish", "shop.orders.delete", "--id", "other"]);
        events.value(&["publish", "shop.users.create", "--id", "during"]);
        assert_eq!(next()["id"], "during");
        signal(&child, "TERM");
        assert_eq!(child.wait().expect("it ends").code(), Some(143));
        let two = events.run(&["tail", "--from", "earliest", "--limit", "2"]).lines();
        assert_eq!(two.iter().map(|event| event["id"].clone()).collect::<Vec<_>>(), ["before", "other"]);
        let last = events.run(&["tail", "--after", "other", "--for", "1s"]).lines();
        assert_eq!(last.len(), 1);
        assert_eq!(events.run(&["tail", "--after", "nothing", "--for", "1s"]).code, Some(1));
    });
}

#[test]
fn dead_letters_are_listed_shown_retried_and_purged() {
    on_each("failed", |events| {
        events.with_dead_letters(5);
        let letters = events.run(&["failed", "list"]).lines();
        assert_eq!(letters.len(), 5);
        let numbers: Vec<String> = letters.iter().map(|letter| letter["number"].to_string()).collect();
        assert_eq!((&letters[0]["subscription"], &letters[0]["reason"]), (&json!("fragile"), &json!("permanent")));
        let page = events.run(&["failed", "list", "--after", &numbers[1], "--limit", "2"]).lines();
        assert_eq!(page.iter().map(|letter| letter["number"].to_string()).collect::<Vec<_>>(), numbers[2..4]);
        assert_eq!(events.run(&["failed", "list", "--subscription", "other"]).lines().len(), 0);
        assert_eq!(events.run(&["failed", "list", "--pattern", "shop.bad.*"]).lines().len(), 5);
        let shown = events.value(&["failed", "show", &numbers[0]]);
        assert_eq!(shown["errors"][0]["message"], "it broke");
        assert_eq!(events.run(&["failed", "show", "999"]).code, Some(3));

        assert_eq!(events.value(&["failed", "retry", &numbers[0]]), json!({"requeued": 1, "not_found": []}));
        assert_eq!(events.run(&["failed", "retry", &numbers[0]]).code, Some(3), "it is no dead letter any more");
        let some = events.run(&["failed", "purge", &numbers[1], "999"]);
        assert_eq!(some.code, Some(6));
        assert_eq!(
            serde_json::from_str::<Value>(&some.stdout).expect("JSON"),
            json!({"purged": 1, "not_found": [999]})
        );
        let all = ["--all", "--reason", "permanent", "--limit", "2"];
        assert_eq!(events.value(&[&["failed", "retry"][..], &all].concat())["requeued"], 2);
        assert_eq!(events.value(&["failed", "purge", "--all"])["purged"], 1);
        let stats = events.value(&["stats"]);
        assert_eq!((&stats["dead_letters"], &stats["subscriptions"][0]["ready"]), (&json!(0), &json!(3)));
        assert_eq!(stats["events"]["failed"], 2, "those that were purged");
        assert_eq!(events.run(&["failed", "retry"]).code, Some(2), "which ones?");
    });
}

#[test]
fn replay_delivers_again_what_the_dry_run_has_counted() {
    on_each("replay", |events| {
        events.with_dead_letters(4);
        let dry = ["replay", "fragile", "--from", "1h", "--limit", "3", "--dry-run"];
        let counted = events.value(&dry);
        assert_eq!((&counted["deliveries"], &counted["dry_run"]), (&json!(3), &json!(true)));
        assert_eq!(events.value(&["failed", "list", "--limit", "1"])["subscription"], "fragile", "nothing was changed");
        let replayed = events.value(&dry[..6]);
        assert_eq!((&replayed["deliveries"], &replayed["next"]), (&json!(3), &counted["next"]));
        let next = replayed["next"].as_str().expect("there is more");
        assert_eq!(events.value(&["replay", "fragile", "--after", next])["deliveries"], 1);
        let lag = events.value(&["sql", "lag"]);
        assert_eq!((&lag["subscriptions"][0]["ready"], &lag["dead_letters"]), (&json!(4), &json!(0)));
        let unknown = events.run(&["replay", "nobody"]);
        assert_eq!(unknown.code, Some(1));
        assert!(unknown.stderr.contains("nobody"), "{}", unknown.stderr);
    });
}

#[test]
fn the_tables_are_made_printed_and_purged() {
    let events = Events::new("sql");
    assert_eq!(events.value(&["sql", "migrate"])["ok"], true);
    assert_eq!(events.value(&["sql", "migrate"])["ok"], true, "twice is once");
    let printed = run(&["sql", "print", "--url", "sqlite:", "--table", "shop_events"], "");
    assert_eq!(printed.code, Some(0));
    let other = rusqlite::Connection::open_in_memory().expect("a database");
    other.execute_batch(&printed.stdout).expect("it is SQL");
    other.execute_batch("INSERT INTO shop_events (id, source, type) VALUES ('a', 'system', 'a.b')").expect("a table");
    for id in ["a", "b"] {
        events.value(&["publish", "shop.orders.create", "--id", id]);
    }
    assert_eq!(events.value(&["sql", "purge", "--older-than", "1h"])["removed"], 0);
    assert_eq!(events.value(&["sql", "purge", "--older-than", "0s", "--status", "failed"])["removed"], 0);
    assert_eq!(events.value(&["sql", "purge", "--older-than", "0s"])["removed"], 2);
    assert_eq!(events.run(&["list"]).lines().len(), 0);
    assert_eq!(events.run(&["sql", "purge", "--older-than", "1h", "--status", "pending"]).code, Some(2));
}

#[test]
fn a_configuration_names_the_back_end_as_well() {
    let events = Events::new("config");
    let file = events.folder.join("c.yaml");
    let section =
        format!("event_broker:\n  provider: database\n  database:\n    url: '{}'\n    table_name: other\n", events.url);
    fs::write(&file, section).expect("a file");
    let file = file.to_str().expect("text");
    assert_eq!(run(&["publish", "a.b", "--id", "one", "--config", file], "").stdout, "one\n");
    assert_eq!(run(&["show", "one", "--config", file], "").code, Some(0));
    assert_eq!(events.run(&["show", "one"]).code, Some(3), "it is in another table");
    assert_eq!(events.run(&["show", "one", "--table", "other"]).code, Some(0));
}

#[test]
fn what_cannot_be_opened_or_asked_is_told_and_has_its_exit_code() {
    let cases: &[(&[&str], i32, &str)] = &[
        (&["list"], 2, "--url"),
        (&["list", "--url", "mongodb://x"], 2, "mongodb"),
        (&["list", "--url", "mysql://user:secret@localhost/db"], 2, "mysql"),
        (&["list", "--url", "nats://:secret@localhost:1"], 4, "localhost:1"),
        (&["list", "--url", "redis://:secret@localhost:1"], 4, "localhost:1"),
        (&["list", "--url", "postgres://user:secret@localhost:1/db"], 4, "localhost"),
        (&["list", "--url", "sqlite:/no/such/folder/events.db"], 4, "/no/such/folder"),
        (&["list", "--url", "sqlite:x.db", "--from", "yesterday"], 2, "yesterday"),
        (&["publish", "a..b", "--url", "sqlite:x.db"], 2, "segment 2"),
        (&["publish", "a.b", "--payload", "{", "--url", "sqlite:x.db"], 2, "payload"),
        (&["list", "--table", "a\"b", "--url", "sqlite:/tmp"], 4, "table_name"),
    ];
    for (arguments, code, word) in cases {
        let run = run(arguments, "");
        assert_eq!((run.code, run.stdout.as_str()), (Some(*code), ""), "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains(word), "{arguments:?}: {}", run.stderr);
        assert!(!run.stderr.contains("secret"), "{}", run.stderr);
    }
}
