//! Certificates for servers that speak TLS, made by `openssl`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A new certificate for the name `localhost` that nobody else has signed, and its key.
pub(crate) fn new(folder: &Path, name: &str) -> (PathBuf, PathBuf) {
    let [certificate, key] = ["crt", "key"].map(|end| folder.join(format!("{name}.{end}")));
    let mut openssl = Command::new("openssl");
    openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
    openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
    openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"]);
    let made = openssl.arg(&key).arg("-out").arg(&certificate).output().expect("openssl runs; is it installed?");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (certificate, key)
}
