//! Passwords and rights that are wrong, and repaired later: the server is asked seldom meanwhile, everything goes on without a restart of the
//! broker, and no secret is shown anywhere. Alone in its process, all of whose traces it reads.

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Config, EventId, PublishError, SubscribeOptions};
use eventbroker_conformance::nats::Server;
use eventbroker_nats::{Nats, OpenError};

use eventbroker_conformance::traces::Traces;
use support::{PATIENCE, RECOVERY, event, listen, wait_until};

const SECRETS: [&str; 2] = ["s3cret-0ne", "s3cret-tw0"];

/// A user with a password and, if something is said, rights; counts from now on.
fn allow(server: &Server, password: &str, rights: &str) {
    server.configure(&user(password, rights));
    server.restart();
}

fn user(password: &str, rights: &str) -> String {
    format!("debug: true\nauthorization {{ users: [ {{ user: \"broker\", password: \"{password}\" {rights} }} ] }}")
}

/// Connections that were made.
fn connected(server: &Server) -> usize {
    server.log().matches("Client connection created").count()
}

#[test]
fn what_is_repaired_goes_on_and_shows_no_secret() {
    let traces = Traces::of_process();
    let server = Server::with(&user(SECRETS[0], ""));
    let nats = |password: &str| Nats::new(format!("nats://broker:{password}@127.0.0.1:{}", server.port()));
    let error = nats(SECRETS[1]).open().expect_err("it is wrong");
    assert!(matches!(error, OpenError::Server(_)), "{error:?}");
    let mut shown = format!("{error} {error:?}");
    let mut config = Config::default();
    config.sync_timeout = Duration::from_millis(500);
    let settings = nats(SECRETS[0]).lease_time(Duration::from_secs(2));
    let provider = settings.open().expect("it opens");
    write!(shown, "{settings:?} {provider:?}").expect("a text grows");
    let broker = Broker::builder().config(config).provider(provider).start().expect("it starts");
    let calls = listen(&broker, SubscribeOptions::new("a.*").name("all"));
    let mut sent: BTreeSet<EventId> = BTreeSet::new();
    sent.insert(broker.publish(event("a.b")).expect("it is accepted").id);
    let faults = [
        ("another password", "refuses the login", SECRETS[1], ""),
        ("no right to publish", "no answer", SECRETS[0], r#", permissions: { publish: "nothing" }"#),
        ("no right to hear answers", "no answer", SECRETS[0], r#", permissions: { subscribe: "nothing" }"#),
    ];
    for (name, told, password, rights) in faults {
        allow(&server, password, rights);
        let refused = broker.publish(event("a.b")).expect_err("it can't be stored");
        assert!(matches!(refused, PublishError::Unknown { .. }), "{name}: {refused}");
        let last_error = || broker.stats().bridge.and_then(|bridge| bridge.last_error).unwrap_or_default();
        // Before that it is told that the server is away for a moment.
        wait_until("it is told", || last_error().contains(told));
        let stats = broker.stats();
        write!(shown, "{refused} {refused:?} {stats:?}").expect("a text grows");
        sent.insert(refused.into_event().id().clone());
        // The first tries come quickly.
        thread::sleep(Duration::from_secs(1));
        let (before, began) = (connected(&server), Instant::now());
        thread::sleep(Duration::from_secs(2));
        let per_second = (connected(&server) - before) as f64 / began.elapsed().as_secs_f64();
        allow(&server, SECRETS[0], "");
        let back = wait_until("it takes events again", || match broker.publish(event("a.b")) {
            Ok(held) => sent.insert(held.id),
            Err(error) => !sent.insert(error.into_event().id().clone()),
        });
        println!("{name}: {per_second:.1} connections a second, it goes on {back:?} after it was repaired");
        assert!(back < RECOVERY, "{name}: {back:?}");
        assert!(per_second <= 10.0, "{name}: {per_second} connections a second");
    }
    let mut came = BTreeSet::new();
    wait_until("all are handled", || {
        came.extend(calls.try_iter());
        came.is_superset(&sent)
    });
    assert_eq!(came, sent);
    assert!(broker.stop(PATIENCE).is_clean());
    let traces = traces.text();
    assert!(traces.contains("refuses the login"), "the traces were read: {traces}");
    for secret in SECRETS {
        assert!(!shown.contains(secret) && !traces.contains(secret), "a secret is shown");
    }
}
