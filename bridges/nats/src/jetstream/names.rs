//! Names as NATS allows them. A token of a subject, and a name of a stream or a consumer, holds letters, digits, `-`, `_` and what is encoded
//! with `=` and two digits; so no type, name or id brings in a wildcard, a space, a dot or an empty token, and no two become the same.

use std::fmt::Write as _;

use eventbroker::Pattern;

/// The longest name of a consumer that is made as it is: longer ones become folders that a server can't make.
const LONGEST: usize = 180;
/// Between the parts of a name. Encoded text never has it: `=` is followed by digits there.
const BETWEEN: &str = "==";

/// A token that stands for the text.
pub(crate) fn token(text: &str) -> String {
    encoded(text, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn encoded(text: &str, is_plain: impl Fn(u8) -> bool) -> String {
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
            token.push(byte as char);
        } else {
            // Writing to a string does not fail.
            let _ = write!(token, "={byte:02X}");
        }
    }
    token
}

/// What the consumers of a subscription are called; with the name of whom it belongs to, if it does to one.
pub(crate) fn unit(group: &str, name: &str, owner: &str) -> String {
    let mut unit = format!("{}{BETWEEN}{}", token(group), token(name));
    if !owner.is_empty() {
        unit = format!("{unit}{BETWEEN}{}", token(owner));
    }
    if unit.len() <= LONGEST {
        return unit;
    }
    let (start, sum) = (&unit[..LONGEST - 40], digest(unit.as_bytes()));
    format!("{start}{BETWEEN}{BETWEEN}{sum:032x}")
}

/// What the consumer of a subscription is called, of a partition if the stream is divided, and of the pattern that it has after so many changes.
pub(crate) fn consumer(unit: &str, partition: Option<u32>, changes: u32) -> String {
    let partition = partition.map_or_else(String::new, |number| format!("=p{number}"));
    let changes = if changes == 0 { String::new() } else { format!("=g{changes}") };
    format!("{unit}{partition}{changes}")
}

/// FNV-1a: the same in every version of this program.
fn digest(bytes: &[u8]) -> u128 {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013B;
    let mut sum: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in bytes {
        sum = (sum ^ u128::from(*byte)).wrapping_mul(PRIME);
    }
    sum
}

/// A segment of a type, as the original writes it where NATS can: only what may not be in a token is encoded.
fn segment(text: &str) -> String {
    encoded(text, |byte| byte.is_ascii_graphic() && !matches!(byte, b'.' | b'*' | b'>' | b'='))
}

/// A type, or a pattern without wildcards, as the end of a subject.
pub(crate) fn type_tokens(event_type: &str) -> String {
    if event_type.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return event_type.to_owned();
    }
    event_type.split('.').map(segment).collect::<Vec<_>>().join(".")
}

/// What the subjects of a partition's events begin with; of all of them if they are not divided.
pub(crate) fn partition(prefix: &str, partition: Option<u32>) -> String {
    partition.map_or_else(|| prefix.to_owned(), |number| format!("{prefix}-p.{number}"))
}

/// The same of the events of every partition.
pub(crate) fn events(prefix: &str, partitions: u32) -> String {
    if partitions == 0 { prefix.to_owned() } else { format!("{prefix}-p.*") }
}

/// The subjects of a stream that is divided into so many partitions, or not at all.
pub(crate) fn of_stream(prefix: &str, partitions: u32) -> String {
    if partitions == 0 { format!("{prefix}.>") } else { format!("{prefix}-p.>") }
}

/// The subjects below `prefix` that the events of a pattern have. Exact for what this bridge publishes: a lone `*` and `**` are everything.
pub(crate) fn filter(prefix: &str, pattern: &Pattern) -> String {
    if pattern.is_match_all() {
        return format!("{prefix}.>");
    }
    let one = |text: &str| match text {
        "*" => "*".to_owned(),
        "**" => ">".to_owned(),
        text => segment(text),
    };
    let tokens: Vec<String> = pattern.as_str().split('.').map(one).collect();
    format!("{prefix}.*.{}", tokens.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_hold_only_what_nats_allows() {
        assert_eq!(token("aZ9-_"), "aZ9-_");
        assert_eq!(token("a.b*>c d=é\r\n"), "a=2Eb=2A=3Ec=20d=3D=C3=A9=0D=0A");
    }

    #[test]
    fn units_are_distinct_and_never_too_long() {
        assert_eq!(unit("workers", "mail", ""), "workers==mail");
        assert_ne!(unit("a", "b==c", ""), unit("a", "b", "c"));
        assert_ne!(unit("a==b", "c", ""), unit("a", "b==c", ""));
        let (long, longer) = (unit(&"é".repeat(120), "a", ""), unit(&"é".repeat(120), "b", ""));
        assert!(long.len() <= LONGEST && long != longer, "{long}");
    }

    #[test]
    fn patterns_become_filters() {
        let of = |pattern: &str| filter("events", &Pattern::parse(pattern).expect("a pattern"));
        assert_eq!(of("*"), "events.>");
        assert_eq!(of("**"), "events.>");
        assert_eq!(of("shop.*.create"), "events.*.shop.*.create");
        assert_eq!(of("shop.**"), "events.*.shop.>");
        assert_eq!(of("a>.b=ü"), "events.*.a=3E.b=3D=C3=BC");
        let divided =
            |pattern: &str| filter(&partition("events", Some(3)), &Pattern::parse(pattern).expect("a pattern"));
        assert_eq!(divided("*"), "events-p.3.>");
        assert_eq!(divided("shop.**"), "events-p.3.*.shop.>");
        assert_eq!(filter(&events("events", 4), &Pattern::parse("shop.**").expect("a pattern")), "events-p.*.*.shop.>");
        assert_eq!(type_tokens("a>.b=ü"), "a=3E.b=3D=C3=BC");
        assert_eq!(type_tokens("shop.orders.create"), "shop.orders.create");
    }
}
