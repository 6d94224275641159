//! Cases about TLS: every connection verifies the server's certificate and name. The same for every provider.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker::{Broker, Config, SubscribeOptions};

pub use crate::certificate::Certificate;
use crate::watch::{PATIENCE, event, last_error, listen, wait_until};

/// Deadline for recovery after a certificate was renewed.
const RENEWED: Duration = Duration::from_secs(5);

/// `open` opens the server by a host name, with a file of roots or with those of the system, or returns the error. The
/// file `roots` has the server's self-signed certificate, the file `stranger` another one of the same name.
///
/// # Panics
/// If a wrong server is accepted, or the right one is refused.
pub fn known_by_certificate(
    open: impl Fn(&str, Option<&Path>) -> Result<Provider, String>,
    roots: &Path,
    stranger: &Path,
) {
    let refusal = |host, roots| open(host, roots).expect_err("it is not known").to_lowercase();
    let error = refusal("localhost", Some(stranger));
    assert!(error.contains("localhost") && error.contains("certificate"), "{error}");
    let error = refusal("127.0.0.1", Some(roots));
    assert!(error.contains("certificate"), "of another name: {error}");
    // The roots of the system did not sign the certificate.
    let error = refusal("localhost", None);
    assert!(error.contains("certificate") || error.contains("no secure connection"), "of the system: {error}");
    let broker = Broker::builder().provider(open("localhost", Some(roots)).expect("it opens"));
    let broker = broker.start().expect("it starts");
    let calls = listen(&broker, SubscribeOptions::new("*").name("all"));
    let id = broker.publish(event("a.b")).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(id));
    assert!(broker.stop(PATIENCE).is_clean());
}

/// `problem` returns the error of opening with a file of roots; `folder` is for temporary files.
///
/// # Panics
/// If the error does not name the file and its problem.
pub fn files_are_checked(problem: impl Fn(&Path) -> String, folder: &Path) {
    let empty = folder.join("empty.pem");
    fs::write(&empty, "").expect("a file");
    let error = problem(&empty);
    assert!(error.contains("tls_ca_file: ") && error.contains("empty.pem: there is no certificate in it"), "{error}");
    let error = problem(Path::new("/nowhere.pem"));
    assert!(error.starts_with("tls_ca_file: /nowhere.pem: "), "{error}");
}

/// A certificate expires while a broker runs, and is renewed. Nothing is stored in between, the broker recovers, and no
/// `secret` is shown. The server presents `of_server` after `restart`; the test replaces it by `expired`.
///
/// # Panics
/// If one of these does not hold.
pub fn expires(
    open: impl Fn(&Path) -> Provider,
    of_server: &Certificate,
    expired: &Certificate,
    restart: impl Fn(),
    secret: &str,
) {
    let beside = |end: &str| -> PathBuf { of_server.certificate.with_extension(end) };
    let valid = Certificate { certificate: beside("crt.valid"), key: beside("key.valid") };
    valid.replace_by(of_server);
    // Both are trusted roots, so the only fault is the expiry.
    let (roots, text) = (beside("both"), |it: &Certificate| fs::read_to_string(&it.certificate).expect("a file"));
    fs::write(&roots, text(&valid) + &text(expired)).expect("a file");
    let mut config = Config::default();
    config.sync_timeout = Duration::from_millis(500);
    let broker = Broker::builder().config(config).provider(open(&roots)).start().expect("it starts");
    let calls = listen(&broker, SubscribeOptions::new("*").name("all"));
    let before = broker.publish(event("a.b")).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(before));
    of_server.replace_by(expired);
    restart();
    let during = event("a.b");
    let refused = broker.publish(during.clone()).expect_err("it can't be stored");
    wait_until("the expiry is reported", || last_error(&broker).to_lowercase().contains("expired"));
    let shown = format!("{refused} {refused:?} {:?}", broker.stats());
    assert!(!shown.contains(secret), "{shown}");
    thread::sleep(Duration::from_secs(1));
    assert!(calls.try_recv().is_err(), "nothing is delivered meanwhile");
    of_server.replace_by(&valid);
    restart();
    let back = wait_until("events are accepted again", || broker.publish(during.clone()).is_ok());
    println!("a certificate expired: recovered {back:?} after the renewal");
    assert!(back < RENEWED, "{back:?}");
    assert_eq!(calls.recv_timeout(PATIENCE).as_ref(), Ok(during.id()));
    assert!(broker.stop(PATIENCE).is_clean());
}
