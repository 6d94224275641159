//! TLS: the bridge verifies the server's certificate and host name.

use std::path::Path;

use eventbroker_conformance::redis::Server;
use eventbroker_conformance::tls;
use eventbroker_redis::{OpenError, Redis};

#[test]
fn a_server_is_verified_by_its_certificate_and_its_name() {
    let (server, certificate) = Server::with_tls();
    let open = |host: &str, roots: Option<&Path>| {
        let redis = Redis::new(format!("rediss://{host}:{}", server.tls_port()));
        let redis = roots.iter().fold(redis, |redis, roots| redis.tls_ca_file(roots));
        redis.open().map_err(|error| {
            assert!(matches!(error, OpenError::Server(_)), "{error:?}");
            error.to_string()
        })
    };
    tls::known_by_certificate(open, &certificate.certificate, &server.certificate("stranger").certificate);
}

#[test]
fn an_expired_certificate_is_refused_until_it_is_renewed() {
    let (server, certificate) = Server::with_tls();
    let url = format!("rediss://localhost:{}", server.tls_port());
    let open = |roots: &Path| Redis::new(&url).tls_ca_file(roots).open().expect("it opens");
    let restart = || {
        server.crash();
        server.up();
    };
    tls::expires(open, &certificate, &server.expired_certificate("expired"), restart, "s3cret");
}

#[test]
fn a_server_without_tls_is_refused_soon() {
    let server = Server::start();
    let error = Redis::new(format!("rediss://u:s3cret@localhost:{}", server.port())).open().expect_err("it can't");
    assert!(matches!(error, OpenError::Server(_)) && !error.to_string().contains("s3cret"), "{error:?}");
}

#[test]
fn a_bad_certificate_file_is_named() {
    let server = Server::start();
    let problem = |redis: Redis| match redis.open() {
        Err(OpenError::Setting(problem)) => problem,
        other => panic!("{other:?}"),
    };
    tls::files_are_checked(|path| problem(Redis::new("rediss://localhost:1").tls_ca_file(path)), server.folder());
    let error = problem(Redis::new("redis://localhost:1").tls_ca_file(server.folder().join("empty.pem")));
    assert_eq!(error, "tls_ca_file: is only for a rediss:// url");
    let error = problem(Redis::new("rediss://localhost:1/#insecure"));
    assert!(error.starts_with("url: #insecure"), "{error}");
}
