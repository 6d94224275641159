//! Takes any two strings as a pattern and an event type. The library must accept exactly the well-formed patterns, and
//! must match exactly as a naive matcher does.

#![no_main]

use eventbroker::Pattern;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|texts: (&str, &str)| {
    let (text, event_type) = texts;
    let parsed = Pattern::parse(text);
    assert_eq!(parsed.is_ok(), is_well_formed(text), "{text:?}");
    let Ok(pattern) = parsed else { return };
    assert_eq!(pattern.as_str(), text);
    assert_eq!(Pattern::parse(pattern.as_str()).as_ref(), Ok(&pattern));

    let wanted: Vec<&str> = text.split('.').collect();
    let given: Vec<&str> = event_type.split('.').collect();
    let expected = text == "*" || naive(&wanted, &given);
    assert_eq!(pattern.matches(event_type), expected, "{text:?} against {event_type:?}");
});

fn naive(wanted: &[&str], given: &[&str]) -> bool {
    match (wanted, given) {
        ([], []) => true,
        (["**"], [_, ..]) => true,
        (["*", wanted @ ..], [_, given @ ..]) => naive(wanted, given),
        ([first, wanted @ ..], [segment, given @ ..]) => first == segment && naive(wanted, given),
        _ => false,
    }
}

fn is_well_formed(text: &str) -> bool {
    let segments: Vec<&str> = text.split('.').collect();
    let last = segments.len() - 1;
    text.len() <= 255
        && segments.len() <= 16
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
        && segments.iter().enumerate().all(|(index, segment)| {
            !segment.is_empty() && (!segment.contains('*') || *segment == "*" || (*segment == "**" && index == last))
        })
}
