//! TLS: a client verifies the server's certificate and its name.

use std::path::Path;

use eventbroker_conformance::nats::Server;
use eventbroker_conformance::tls;
use eventbroker_nats::{Nats, OpenError};

#[test]
fn a_server_is_known_by_its_certificate_and_its_name() {
    let (server, certificate) = Server::with_tls();
    let roots = certificate.certificate.as_path();
    let secret = |host: &str| Nats::new(format!("tls://u:s3cret@{host}:{}", server.port()));
    let problem = |error: OpenError| {
        assert!(matches!(error, OpenError::Server(_)) && !error.to_string().contains("s3cret"), "{error:?}");
        error.to_string()
    };
    let open = |host: &str, roots: Option<&Path>| {
        let nats = roots.iter().fold(secret(host), |nats, roots| nats.tls_ca_file(roots));
        nats.open().map_err(problem)
    };
    tls::known_by_certificate(open, roots, &server.certificate("stranger").certificate);
    let error = open("127.0.0.1", Some(roots)).expect_err("it has another name");
    assert!(error.contains("not valid for name"), "{error}");
    let plain = Nats::new(format!("nats://u:s3cret@localhost:{}", server.port()));
    let error = problem(plain.open().expect_err("it is not known"));
    assert!(error.contains("no secure connection"), "the server asks for TLS: {error}");
}

#[test]
fn a_certificate_that_expires_is_refused_until_it_is_renewed() {
    let (server, certificate) = Server::with_tls();
    let url = format!("tls://u:s3cret@localhost:{}", server.port());
    let open = |roots: &Path| Nats::new(&url).tls_ca_file(roots).open().expect("it opens");
    let expired = server.expired_certificate("expired");
    tls::expires(open, &certificate, &expired, || server.restart(), "s3cret");
}

#[test]
fn a_plain_server_that_is_asked_for_tls_is_refused_soon() {
    let server = Server::start();
    let error = Nats::new(format!("tls://u:s3cret@localhost:{}", server.port())).open().expect_err("it can't");
    assert!(matches!(error, OpenError::Server(_)) && !error.to_string().contains("s3cret"), "{error:?}");
    // One `tls://` address makes TLS mandatory for all addresses.
    let plain = format!("nats://127.0.0.1:{}, tls://localhost:1", server.port());
    assert!(matches!(Nats::new(plain).open(), Err(OpenError::Server(_))), "no server is reached in the clear");
}

#[test]
fn problems_of_the_certificate_file_are_named() {
    let server = Server::start();
    let problem = |nats: Nats| match nats.open() {
        Err(OpenError::Setting(problem)) => problem,
        other => panic!("{other:?}"),
    };
    tls::files_are_checked(|path| problem(Nats::new("tls://localhost:1").tls_ca_file(path)), &server.folder());
    let error = problem(Nats::new("nats://localhost:1").tls_ca_file("/nowhere.pem"));
    assert_eq!(error, "tls_ca_file: is only for a tls:// url");
}
