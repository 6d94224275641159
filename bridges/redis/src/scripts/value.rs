//! Values as arguments of commands and scripts.

use std::time::{Duration, SystemTime};

pub(crate) fn flag(it: bool) -> &'static str {
    if it { "1" } else { "0" }
}

pub(crate) fn millis(time: Duration) -> String {
    time.as_millis().min(1 << 52).to_string()
}

/// The time since 1970.
pub(crate) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
