//! Parsing of times and durations in arguments: `2026-11-24T08:00:00Z`, or `90m` for 90 minutes ago.

use std::time::{Duration, SystemTime};

use jiff::{Span, SpanRelativeTo, Timestamp};

/// Parses a duration: `30s`, `1h 30m`, `7d`. A day has 24 hours.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let span: Span = text.parse().map_err(|_| "not a duration: give something like 30s, 1h30m or 7d".to_owned())?;
    let exact = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|error| error.to_string())?;
    Duration::try_from(exact).map_err(|_| "must not be negative".to_owned())
}

/// Parses a time in RFC 3339, or a duration before now.
pub(crate) fn time(text: &str) -> Result<SystemTime, String> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time.into());
    }
    let ago = duration(text)
        .map_err(|_| "not a time: give one like 2026-11-24T08:00:00Z, or a duration before now like 90m".to_owned())?;
    SystemTime::now().checked_sub(ago).ok_or_else(|| "is too long ago".to_owned())
}

/// Formats a time in RFC 3339 with milliseconds; `-` if it is out of range.
pub(crate) fn text(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "-".to_owned(), |time| format!("{time:.3}"))
}
