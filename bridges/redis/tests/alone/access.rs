//! Wrong passwords and missing rights, repaired later: the bridge retries at a bounded rate and recovers without a
//! restart. No error, log or `Debug` text shows a secret.

use std::cell::RefCell;
use std::time::Duration;

use crate::support::{ask, client};
use eventbroker_conformance::access::{self, Fault, SECRETS};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::{OpenError, Redis};
use redis::Connection;

/// Sets the password and the rights of the user `broker`, and closes its connections.
fn allow(admin: &RefCell<Connection>, password: &str, rights: &[&str]) {
    let (password, user) = (format!(">{password}"), ["ACL", "SETUSER", "broker", "on", "resetpass"]);
    let admin = &mut *admin.borrow_mut();
    ask::<()>(admin, &[&user[..], &[&password, "allkeys", "+@all"], rights].concat());
    ask::<u64>(admin, &["CLIENT", "KILL", "USER", "broker"]);
}

/// The number of commands that the server has rejected, and of connections that it has accepted.
fn refused_and_connected(admin: &RefCell<Connection>) -> Vec<u64> {
    let number = |text: &str| text.split(|it: char| !it.is_ascii_digit()).find_map(|it| it.parse::<u64>().ok());
    let info: String = ask(&mut admin.borrow_mut(), &["INFO", "everything"]);
    let sum = |prefix: &str| -> u64 {
        let lines = info.lines().filter_map(|line| line.strip_prefix(prefix));
        lines.filter_map(|line| number(line.split_once([':', '=']).map_or(line, |it| it.1))).sum()
    };
    let refused = sum("errorstat_WRONGPASS") + sum("errorstat_NOPERM") + sum("errorstat_NOAUTH");
    vec![refused, sum("total_connections_received")]
}

#[test]
fn what_is_repaired_goes_on_and_shows_no_secret() {
    let _process = crate::process();
    let server = Server::start();
    let admin = RefCell::new(client(&server.url()));
    allow(&admin, SECRETS[0], &[]);
    let open = |password: &str| {
        let redis = Redis::new(format!("redis://broker:{password}@127.0.0.1:{}", server.port()));
        let redis = redis.lease_time(Duration::from_secs(2));
        match redis.open() {
            Ok(provider) => (format!("{redis:?}"), Some(provider)),
            Err(error @ OpenError::Server(_)) => (format!("{redis:?} {error} {error:?}"), None),
            Err(error) => panic!("{error:?}"),
        }
    };
    let faults: [Fault<'_>; 3] = [
        ("another password", &["WRONGPASS", "authentication failed"], &|| allow(&admin, SECRETS[1], &[])),
        ("no right to a command", &["NOPERM"], &|| allow(&admin, SECRETS[0], &["-evalsha"])),
        ("a user that is off", &["WRONGPASS", "authentication failed"], &|| allow(&admin, SECRETS[0], &["off"])),
    ];
    let repair = || allow(&admin, SECRETS[0], &[]);
    for seen in access::repaired(open, &faults, repair, || refused_and_connected(&admin)) {
        assert!(seen.reported_after < Duration::from_millis(100), "who gives up knows why: {seen:?}");
        assert!(seen.per_second > 0.0, "the server counts the tries: {seen:?}");
    }
}
