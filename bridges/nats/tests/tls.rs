//! TLS: a server is known by its certificate and its name, and without the feature nobody is spoken to in the clear instead.

mod support;

use eventbroker_conformance::nats::Server;
use eventbroker_nats::{Nats, OpenError};

#[cfg(feature = "tls")]
use {
    eventbroker::SubscribeOptions,
    std::fs,
    std::path::Path,
    support::{PATIENCE, event, listen, start, wait_until},
};

#[cfg(not(feature = "tls"))]
#[test]
fn without_the_feature_it_is_named() {
    let error = Nats::new("tls://u:s3cret@localhost").open().expect_err("it can't");
    assert!(matches!(&error, OpenError::Setting(problem) if problem.contains("feature `tls`")), "{error:?}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
    let (server, _) = Server::with_tls();
    let error = Nats::new(format!("nats://u:s3cret@localhost:{}", server.port())).open().expect_err("it asks for TLS");
    assert!(matches!(&error, OpenError::Server(problem) if problem.contains("feature `tls`")), "{error:?}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[cfg(feature = "tls")]
#[test]
fn a_server_is_known_by_its_certificate_and_its_name() {
    let (server, roots) = Server::with_tls();
    let (stranger, _) = server.certificate("stranger");
    let secret = |host: &str| Nats::new(format!("tls://u:s3cret@{host}:{}", server.port()));
    let at = |host: &str, roots: &Path| secret(host).tls_ca_file(roots);
    let refusal = |nats: Nats| match nats.open() {
        Err(OpenError::Server(problem)) => {
            assert!(!problem.contains("s3cret"), "{problem}");
            problem
        }
        other => panic!("{other:?}"),
    };
    let error = refusal(at("localhost", &stranger));
    assert!(error.contains("localhost") && error.contains("certificate"), "{error}");
    let error = refusal(at("127.0.0.1", &roots));
    assert!(error.contains("certificate") && error.contains("not valid for name"), "of another name: {error}");
    // Nobody of this machine has signed it.
    let error = refusal(secret("localhost"));
    assert!(error.contains("no secure connection"), "of the system: {error}");
    let error = refusal(Nats::new(format!("nats://u:s3cret@localhost:{}", server.port())));
    assert!(error.contains("no secure connection"), "it is asked for by the server: {error}");
    let broker = start(&at("localhost", &roots));
    let calls = listen(&broker, SubscribeOptions::new("*").name("all"));
    let id = broker.publish(event("a.b")).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(id));
    // The connection that is made next is checked as well.
    server.restart();
    wait_until("it goes on", || broker.publish(event("a.b")).is_ok());
    calls.recv_timeout(PATIENCE).expect("it is handled");
    assert!(broker.stop(PATIENCE).is_clean());
}

#[cfg(feature = "tls")]
#[test]
fn a_plain_server_that_is_asked_for_tls_is_refused_soon() {
    let server = Server::start();
    let error = Nats::new(format!("tls://u:s3cret@localhost:{}", server.port())).open().expect_err("it can't");
    assert!(matches!(error, OpenError::Server(_)) && !error.to_string().contains("s3cret"), "{error:?}");
    // One secure address is enough for all.
    let plain = format!("nats://127.0.0.1:{}, tls://localhost:1", server.port());
    assert!(matches!(Nats::new(plain).open(), Err(OpenError::Server(_))), "nobody is spoken to in the clear");
}

#[cfg(feature = "tls")]
#[test]
fn what_is_wrong_with_the_file_is_told() {
    let server = Server::start();
    let empty = server.folder().join("empty.pem");
    fs::write(&empty, "").expect("a file");
    let problem = |nats: Nats| match nats.open() {
        Err(OpenError::Setting(problem)) => problem,
        other => panic!("{other:?}"),
    };
    let secret = || Nats::new("tls://localhost:1");
    let error = problem(secret().tls_ca_file(&empty));
    assert!(error.contains("tls_ca_file: ") && error.contains("empty.pem: there is no certificate in it"), "{error}");
    let error = problem(secret().tls_ca_file("/nowhere.pem"));
    assert!(error.starts_with("tls_ca_file: /nowhere.pem: "), "{error}");
    let error = problem(Nats::new("nats://localhost:1").tls_ca_file(&empty));
    assert_eq!(error, "tls_ca_file: is only for a tls:// url");
}
