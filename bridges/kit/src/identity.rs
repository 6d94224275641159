//! The identity of a provider among all providers of a back end.

use std::hash::{BuildHasher as _, RandomState};
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// A new boot id, which no other provider has: of the process, the provider in it, and a random number.
pub fn new_boot_id() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    let (pid, number) = (process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    format!("{pid}-{number}-{:016x}", RandomState::new().hash_one((pid, now)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_a_process_are_distinct_and_fit_every_name() {
        let (one, other) = (new_boot_id(), new_boot_id());
        assert_ne!(one, other);
        assert!(one.starts_with(&format!("{}-", process::id())), "{one}");
        assert!(one.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-'), "{one}");
    }
}
