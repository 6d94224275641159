//! Wrong passwords and missing rights that are repaired later. The bridge retries at a bounded rate, recovers without a
//! restart of the broker, and shows no secret.

use std::time::Duration;

use eventbroker_conformance::access::{self, Fault, SECRETS};
use eventbroker_conformance::nats::Server;
use eventbroker_nats::{Nats, OpenError};

/// Configures a user with a password and optional rights, and restarts the server to apply them.
fn allow(server: &Server, password: &str, rights: &str) {
    server.configure(&user(password, rights));
    server.restart();
}

fn user(password: &str, rights: &str) -> String {
    format!("debug: true\nauthorization {{ users: [ {{ user: \"broker\", password: \"{password}\" {rights} }} ] }}")
}

/// The number of connections that the server has accepted.
fn connected(server: &Server) -> u64 {
    server.log().matches("Client connection created").count() as u64
}

#[test]
fn repaired_access_goes_on_and_shows_no_secret() {
    let _process = crate::process();
    let server = Server::with(&user(SECRETS[0], ""));
    let open = |password: &str| {
        let nats = Nats::new(format!("nats://broker:{password}@127.0.0.1:{}", server.port()));
        let nats = nats.lease_time(Duration::from_secs(2));
        match nats.open() {
            Ok(provider) => (format!("{nats:?}"), Some(provider)),
            Err(error @ OpenError::Server(_)) => (format!("{nats:?} {error} {error:?}"), None),
            Err(error) => panic!("{error:?}"),
        }
    };
    let no_publishing = r#", permissions: { publish: "nothing" }"#;
    let no_answers = r#", permissions: { subscribe: "nothing" }"#;
    let faults: [Fault<'_>; 3] = [
        ("another password", &["refuses the login"], &|| allow(&server, SECRETS[1], "")),
        ("no right to publish", &["no answer"], &|| allow(&server, SECRETS[0], no_publishing)),
        ("no right to hear answers", &["no answer"], &|| allow(&server, SECRETS[0], no_answers)),
    ];
    access::repaired(open, &faults, || allow(&server, SECRETS[0], ""), || vec![connected(&server)]);
}
