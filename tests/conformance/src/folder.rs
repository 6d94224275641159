//! New folders among the temporary files.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fs, process};

/// A new folder for something of that kind. One of the same name may be there: what a process that was killed has left behind, whose number another
/// one has got since.
///
/// # Panics
/// If there is no room for it.
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
