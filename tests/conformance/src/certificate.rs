//! Self-signed certificates for TLS servers, made by `openssl`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The file of the certificate.
    pub certificate: PathBuf,
    /// The file of the key.
    pub key: PathBuf,
}

impl Certificate {
    /// Creates a self-signed certificate for `localhost`.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        Self::made_by(Command::new("openssl"), folder, name)
    }

    /// Creates a self-signed certificate that expired yesterday.
    pub(crate) fn expired(folder: &Path, name: &str) -> Self {
        let mut openssl = Command::new("faketime");
        openssl.args(["3 days ago", "openssl"]);
        Self::made_by(openssl, folder, name)
    }

    fn made_by(mut openssl: Command, folder: &Path, name: &str) -> Self {
        let [certificate, key] = ["crt", "key"].map(|end| folder.join(format!("{name}.{end}")));
        openssl.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        openssl.args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]);
        openssl.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"]);
        let made = openssl.arg(&key).arg("-out").arg(&certificate).output();
        let made = made.expect("openssl runs; are it and faketime installed?");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Self { certificate, key }
    }

    /// Overwrites the files with those of another certificate.
    pub fn replace_by(&self, other: &Self) {
        for (to, from) in [(&self.certificate, &other.certificate), (&self.key, &other.key)] {
            fs::copy(from, to).expect("a copy");
        }
    }
}
