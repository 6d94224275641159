//! Without the feature `tls`, an address that requires TLS is refused; the bridge does not fall back to plain text.
#![cfg(not(feature = "tls"))]

use eventbroker_conformance::nats::Server;
use eventbroker_nats::{Nats, OpenError};

#[test]
fn a_tls_address_is_refused_with_the_name_of_the_feature() {
    let error = Nats::new("tls://u:s3cret@localhost").open().expect_err("it can't");
    assert!(matches!(&error, OpenError::Setting(problem) if problem.contains("feature `tls`")), "{error:?}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
    let (server, _) = Server::with_tls();
    let error = Nats::new(format!("nats://u:s3cret@localhost:{}", server.port())).open().expect_err("it asks for TLS");
    assert!(matches!(&error, OpenError::Server(problem) if problem.contains("feature `tls`")), "{error:?}");
    assert!(!error.to_string().contains("s3cret"), "{error}");
}
