//! Temporary folders.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, process};

/// Creates a folder named after a kind and this process. An existing one, left by a killed process with the same id, is
/// skipped.
///
/// # Panics
/// If the folder cannot be created.
pub fn new(kind: &str) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let name = format!("eventbroker-{kind}-{}-{}", process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = env::temp_dir().join(name);
        match fs::create_dir(&path) {
            Ok(()) => return path,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => panic!("a new folder: {error}"),
        }
    }
}
