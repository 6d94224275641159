//! Passwords and rights that are wrong, and repaired later: the server is asked seldom meanwhile, everything goes on without a restart, and no
//! secret is shown anywhere. Alone in its process, all of whose traces it reads.

mod support;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Config, EventId, PublishError, SubscribeOptions};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::{OpenError, Redis};
use redis::Connection;

use eventbroker_conformance::traces::Traces;
use support::{PATIENCE, ask, client, event, listen, wait_until};

const SECRETS: [&str; 2] = ["s3cret-0ne", "s3cret-tw0"];

/// A user with a password and every right on the keys of the broker; whoever is connected as it is thrown out.
fn allow(admin: &mut Connection, password: &str, rights: &[&str]) {
    let (password, user) = (format!(">{password}"), ["ACL", "SETUSER", "broker", "on", "resetpass"]);
    ask::<()>(admin, &[&user[..], &[&password, "allkeys", "+@all"], rights].concat());
    ask::<u64>(admin, &["CLIENT", "KILL", "USER", "broker"]);
}

/// Commands that the server has refused, and connections that were made.
fn refused_and_connected(admin: &mut Connection) -> (u64, u64) {
    let number = |text: &str| text.split(|it: char| !it.is_ascii_digit()).find_map(|it| it.parse::<u64>().ok());
    let info: String = ask(admin, &["INFO", "everything"]);
    let sum = |prefix: &str| {
        let lines = info.lines().filter_map(|line| line.strip_prefix(prefix));
        lines.filter_map(|line| number(line.split_once([':', '=']).map_or(line, |it| it.1))).sum()
    };
    let refused = sum("errorstat_WRONGPASS") + sum("errorstat_NOPERM") + sum("errorstat_NOAUTH");
    (refused, sum("total_connections_received"))
}

#[test]
fn what_is_repaired_goes_on_and_shows_no_secret() {
    let traces = Traces::of_process();
    let server = Server::start();
    let mut admin = client(&server.url());
    allow(&mut admin, SECRETS[0], &[]);
    let redis = |password: &str| Redis::new(format!("redis://broker:{password}@127.0.0.1:{}", server.port()));
    let error = redis(SECRETS[1]).open().expect_err("it is wrong");
    assert!(matches!(error, OpenError::Server(_)), "{error:?}");
    let mut shown = format!("{error} {error:?}");
    let mut config = Config::default();
    config.sync_timeout = Duration::from_millis(500);
    let settings = redis(SECRETS[0]).lease_time(Duration::from_secs(2));
    let provider = settings.open().expect("it opens");
    write!(shown, "{settings:?} {provider:?}").expect("a text grows");
    let broker = Broker::builder().config(config).provider(provider).start().expect("it starts");
    let calls = listen(&broker, SubscribeOptions::new("a.*").name("all"));
    let mut sent: BTreeSet<EventId> = BTreeSet::new();
    sent.insert(broker.publish(event("a.b")).expect("it is accepted").id);
    type Change = fn(&mut Connection);
    let faults: [(&str, &str, Change, Change); 3] = [
        ("another password", "WRONGPASS", |it| allow(it, SECRETS[1], &[]), |it| allow(it, SECRETS[0], &[])),
        ("no right to a command", "NOPERM", |it| allow(it, SECRETS[0], &["-evalsha"]), |it| allow(it, SECRETS[0], &[])),
        ("a user that is off", "WRONGPASS", |it| allow(it, SECRETS[0], &["off"]), |it| allow(it, SECRETS[0], &[])),
    ];
    for (name, code, break_it, repair) in faults {
        break_it(&mut admin);
        let refused = broker.publish(event("a.b")).expect_err("it can't be stored");
        assert!(matches!(refused, PublishError::Unknown { .. }), "{name}: {refused}");
        let stats = broker.stats();
        let error = stats.bridge.as_ref().and_then(|bridge| bridge.last_error.clone()).expect("an error");
        assert!(error.contains(code) || error.contains("authentication failed"), "{name}: {error}");
        write!(shown, "{refused} {refused:?} {stats:?}").expect("a text grows");
        sent.insert(refused.into_event().id().clone());
        // The first tries come quickly.
        thread::sleep(Duration::from_secs(1));
        let (before, began) = (refused_and_connected(&mut admin), Instant::now());
        thread::sleep(Duration::from_secs(2));
        let (after, took) = (refused_and_connected(&mut admin), began.elapsed().as_secs_f64());
        let per_second = (after.0 - before.0).max(after.1 - before.1) as f64 / took;
        repair(&mut admin);
        let back = wait_until("it takes events again", || match broker.publish(event("a.b")) {
            Ok(held) => sent.insert(held.id),
            Err(error) => !sent.insert(error.into_event().id().clone()),
        });
        println!("{name}: {per_second:.1} tries a second, it goes on {back:?} after it was repaired");
        assert!(back < Duration::from_secs(5), "{name}: {back:?}");
        assert!(per_second > 0.0 && per_second <= 10.0, "{name}: {per_second} tries a second");
    }
    let mut came = BTreeSet::new();
    wait_until("all are handled", || {
        came.extend(calls.try_iter());
        came.is_superset(&sent)
    });
    assert_eq!(came, sent);
    assert!(broker.stop(PATIENCE).is_clean());
    let traces = traces.text();
    assert!(traces.contains("WRONGPASS") || traces.contains("authentication failed"), "the traces were read: {traces}");
    for secret in SECRETS {
        assert!(!shown.contains(secret) && !traces.contains(secret), "a secret is shown");
    }
}
