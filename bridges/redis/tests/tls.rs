//! TLS: a server is known by its certificate and its name, and without the feature nobody is spoken to in the clear instead.

mod support;

#[cfg(feature = "tls")]
use {
    eventbroker::SubscribeOptions,
    eventbroker_conformance::redis::Server,
    std::fs,
    std::path::Path,
    support::{PATIENCE, event, listen, start},
};

use eventbroker_redis::{OpenError, Redis};

#[cfg(not(feature = "tls"))]
#[test]
fn without_the_feature_it_is_named() {
    let error = Redis::new("rediss://u:s3cret@localhost").open().expect_err("it can't");
    assert!(matches!(&error, OpenError::Setting(problem) if problem.contains("feature `tls`")), "{error:?}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}

#[cfg(feature = "tls")]
#[test]
fn a_server_is_known_by_its_certificate_and_its_name() {
    let (server, roots) = Server::with_tls();
    let (stranger, _) = server.certificate("stranger");
    let at = |host: &str, roots: &Path| Redis::new(format!("rediss://{host}:{}", server.tls_port())).tls_ca_file(roots);
    let refusal = |redis: Redis| match redis.open() {
        Err(OpenError::Server(problem)) => problem,
        other => panic!("{other:?}"),
    };
    let error = refusal(at("localhost", &stranger));
    assert!(error.contains("localhost") && error.to_lowercase().contains("certificate"), "{error}");
    let error = refusal(at("127.0.0.1", &roots));
    assert!(error.to_lowercase().contains("certificate"), "of another name: {error}");
    // Nobody of this machine has signed it.
    let error = refusal(Redis::new(format!("rediss://localhost:{}", server.tls_port())));
    assert!(error.to_lowercase().contains("certificate"), "of the system: {error}");
    let broker = start(&at("localhost", &roots));
    let calls = listen(&broker, SubscribeOptions::new("*").name("all"));
    let id = broker.publish(event("a.b")).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(id));
    assert!(broker.stop(PATIENCE).is_clean());
}

#[cfg(feature = "tls")]
#[test]
fn a_plain_server_that_is_asked_for_tls_is_refused_soon() {
    let server = Server::start();
    let error = Redis::new(format!("rediss://u:s3cret@localhost:{}", server.port())).open().expect_err("it can't");
    assert!(matches!(error, OpenError::Server(_)) && !error.to_string().contains("s3cret"), "{error:?}");
}

#[cfg(feature = "tls")]
#[test]
fn what_is_wrong_with_the_file_is_told() {
    let server = Server::start();
    let empty = server.folder().join("empty.pem");
    fs::write(&empty, "").expect("a file");
    let problem = |redis: Redis| match redis.open() {
        Err(OpenError::Setting(problem)) => problem,
        other => panic!("{other:?}"),
    };
    let secret = || Redis::new("rediss://localhost:1");
    let error = problem(secret().tls_ca_file(&empty));
    assert!(error.contains("tls_ca_file: ") && error.contains("empty.pem: there is no certificate in it"), "{error}");
    let error = problem(secret().tls_ca_file("/nowhere.pem"));
    assert!(error.starts_with("tls_ca_file: /nowhere.pem: "), "{error}");
    let error = problem(Redis::new("redis://localhost:1").tls_ca_file(&empty));
    assert_eq!(error, "tls_ca_file: is only for a rediss:// url");
    let error = problem(Redis::new("rediss://localhost:1/#insecure"));
    assert!(error.starts_with("url: #insecure"), "{error}");
}
