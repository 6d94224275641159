//! The clock of leases: the uptime of the machine, which all its processes read alike and which cannot be set. A wall clock that jumps
//! by an hour would end every lease at once, or none for an hour.

use std::fs;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The id of this boot of the machine: the uptime starts anew with each boot. Empty if the system does not have one.
pub(crate) fn boot_id() -> &'static str {
    static BOOT: LazyLock<String> = LazyLock::new(|| match uptime() {
        Some(_) => fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned(),
        None => String::new(),
    });
    &BOOT
}

/// Milliseconds since the machine was started, or since 1970 if the system does not report its uptime.
pub(crate) fn now_millis() -> i64 {
    uptime().unwrap_or_else(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

/// The time on this clock that is `after` from now.
pub(crate) fn deadline(after: Duration) -> i64 {
    now_millis().saturating_add(i64::try_from(after.as_millis()).unwrap_or(i64::MAX))
}

fn uptime() -> Option<i64> {
    let text = fs::read_to_string("/proc/uptime").ok()?;
    let seconds: f64 = text.split(' ').next()?.parse().ok()?;
    Some((seconds * 1_000.0) as i64)
}
