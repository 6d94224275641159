//! The trace context in an event's metadata, as W3C Trace Context defines it.

use super::invalid::{Invalid, Problem};

/// The entry with the trace, and with the span that published the event.
pub(crate) const TRACEPARENT: &str = "traceparent";
/// The entries that are trace context, not content of the event.
const ENTRIES: [&str; 3] = [TRACEPARENT, "tracestate", "baggage"];

/// The length of a `traceparent` of version 00: `VERSION-TRACE-SPAN-FLAGS`.
const LENGTH: usize = 55;

pub(super) fn is_context(entry: &str) -> bool {
    ENTRIES.contains(&entry)
}

/// Checks a `traceparent` by <https://www.w3.org/TR/trace-context/#traceparent-header>: lower-case digits, no id of
/// only zeros. A later version may append fields after another `-`.
pub(super) fn check_traceparent(text: &str) -> Result<(), Invalid> {
    if is_traceparent(text) { Ok(()) } else { Err(malformed()) }
}

pub(super) fn is_traceparent(text: &str) -> bool {
    let mut parts = text.splitn(5, '-');
    let mut next = |digits: usize| {
        let part = parts.next().unwrap_or_default();
        (part.len() == digits && part.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))).then_some(part)
    };
    let (Some(version), Some(trace), Some(span), Some(_)) = (next(2), next(32), next(16), next(2)) else {
        return false;
    };
    let is_id = |id: &str| id.bytes().any(|it| it != b'0');
    version != "ff" && is_id(trace) && is_id(span) && (text.len() == LENGTH || version != "00")
}

#[cold]
fn malformed() -> Invalid {
    let form =
        "is not VERSION-TRACE-SPAN-FLAGS in 2, 32, 16 and 2 lower-case hexadecimal digits, with ids that are not 0";
    Invalid::new(TRACEPARENT, Problem::OutOfBounds(form.to_owned()))
}
