//! Self-signed certificates for TLS servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, KeyPair};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

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
        Self::valid_until(SystemTime::now() + DAY, folder, name)
    }

    /// Creates a self-signed certificate that expired yesterday.
    pub(crate) fn expired(folder: &Path, name: &str) -> Self {
        Self::valid_until(SystemTime::now() - DAY, folder, name)
    }

    /// Creates a self-signed certificate that is valid for the two days before `end`.
    fn valid_until(end: SystemTime, folder: &Path, name: &str) -> Self {
        let mut parameters = CertificateParams::new(["localhost".to_owned()]).expect("a name of a host");
        parameters.not_before = (end - 2 * DAY).into();
        parameters.not_after = end.into();
        let key = KeyPair::generate().expect("a key");
        let certificate = parameters.self_signed(&key).expect("a certificate");
        let files = ["crt", "key"].map(|end| folder.join(format!("{name}.{end}")));
        for (file, text) in files.iter().zip([certificate.pem(), key.serialize_pem()]) {
            fs::write(file, text).expect("a file");
        }
        let [certificate, key] = files;
        Self { certificate, key }
    }

    /// Overwrites the files with those of another certificate.
    pub fn replace_by(&self, other: &Self) {
        for (to, from) in [(&self.certificate, &other.certificate), (&self.key, &other.key)] {
            fs::copy(from, to).expect("a copy");
        }
    }
}
