//! The time that leases count in: one that every process of the machine reads alike, and that nobody can set. A wall clock that
//! jumps by an hour would end every lease at once, or none for an hour.

use std::fs;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells this run of the machine from others, where the system says so: the time starts anew with each.
pub(crate) fn boot() -> &'static str {
    static BOOT: LazyLock<String> = LazyLock::new(|| match uptime() {
        Some(_) => fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
        None => String::new(),
    });
    &BOOT
}

/// Milliseconds since the machine was started; where the system does not say, since 1970.
pub(crate) fn now_millis() -> i64 {
    uptime().unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

fn uptime() -> Option<i64> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split(' ').next()?.parse().ok()?;
    Some((seconds * 1_000.0) as i64)
}
