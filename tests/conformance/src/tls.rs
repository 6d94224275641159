//! TLS as every provider does it: a server is known by its certificate and its name, which is checked at each connection.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker::{Broker, Config, SubscribeOptions};

pub use crate::certificate::Certificate;
use crate::watch::{PATIENCE, event, last_error, listen, wait_until};

/// How soon everything goes on after a certificate was renewed.
const RENEWED: Duration = Duration::from_secs(5);

/// `open` opens the server by the name of a host, with certificates that it is checked with, or with those of the system; or says why not.
/// Nobody has signed the server's certificate, so it is in the file `roots`; in the file `stranger` there is another one of that name.
///
/// # Panics
/// If a server is taken for one that it is not, or that which it is not for it.
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
    // Nobody of this machine has signed it.
    let error = refusal("localhost", None);
    assert!(error.contains("certificate") || error.contains("no secure connection"), "of the system: {error}");
    let broker = Broker::builder().provider(open("localhost", Some(roots)).expect("it opens"));
    let broker = broker.start().expect("it starts");
    let calls = listen(&broker, SubscribeOptions::new("*").name("all"));
    let id = broker.publish(event("a.b")).expect("it is accepted").id;
    assert_eq!(calls.recv_timeout(PATIENCE), Ok(id));
    assert!(broker.stop(PATIENCE).is_clean());
}

/// `problem` is what is wrong with a file of certificates, `folder` is for files.
///
/// # Panics
/// If it is not told.
pub fn files_are_checked(problem: impl Fn(&Path) -> String, folder: &Path) {
    let empty = folder.join("empty.pem");
    fs::write(&empty, "").expect("a file");
    let error = problem(&empty);
    assert!(error.contains("tls_ca_file: ") && error.contains("empty.pem: there is no certificate in it"), "{error}");
    let error = problem(Path::new("/nowhere.pem"));
    assert!(error.starts_with("tls_ca_file: /nowhere.pem: "), "{error}");
}

/// A certificate that expires while a broker runs, and is renewed: nothing is stored meanwhile, everything goes on then, and no `secret` is
/// told. `of_server` is what the server presents when it is started by `restart`, `expired` what it is replaced by.
///
/// # Panics
/// If it is otherwise.
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
    // Both are trusted: it is only that one of them is too old.
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
    wait_until("it is told", || last_error(&broker).to_lowercase().contains("expired"));
    let shown = format!("{refused} {refused:?} {:?}", broker.stats());
    assert!(!shown.contains(secret), "{shown}");
    thread::sleep(Duration::from_secs(1));
    assert!(calls.try_recv().is_err(), "nobody is spoken to");
    of_server.replace_by(&valid);
    restart();
    let back = wait_until("it takes events again", || broker.publish(during.clone()).is_ok());
    println!("a certificate expired: it goes on {back:?} after it was renewed");
    assert!(back < RENEWED, "{back:?}");
    assert_eq!(calls.recv_timeout(PATIENCE).as_ref(), Ok(during.id()));
    assert!(broker.stop(PATIENCE).is_clean());
}
