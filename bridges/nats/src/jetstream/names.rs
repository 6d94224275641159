//! Names as NATS allows them. A token of a subject, or the name of a stream or a consumer, consists of letters, digits, `-`, `_` and bytes encoded as
//! `=` and two digits. So no type, name or id adds a wildcard, a space, a dot or an empty token, and two texts never get the same token.

use std::fmt::Write as _;

use eventbroker::Pattern;

/// The longest name of a consumer without a checksum: the server makes a folder of it.
const LONGEST: usize = 180;
/// The separator of the parts of a name. Encoded text never contains it, since digits follow `=` there.
const BETWEEN: &str = "==";

/// The token of a text.
pub(crate) fn token(text: &str) -> String {
    encoded(text, |byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn encoded(text: &str, is_plain: impl Fn(u8) -> bool) -> String {
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_plain(byte) {
            token.push(byte as char);
        } else {
            // A write to a string does not fail.
            let _ = write!(token, "={byte:02X}");
        }
    }
    token
}

/// The durable name of a subscription: of its group, its name, and its owner if it has one.
pub(super) fn durable(group: &str, name: &str, owner: &str) -> String {
    let mut durable = format!("{}{BETWEEN}{}", token(group), token(name));
    if !owner.is_empty() {
        durable = format!("{durable}{BETWEEN}{}", token(owner));
    }
    if durable.len() <= LONGEST {
        return durable;
    }
    let (start, sum) = (&durable[..LONGEST - 40], digest(durable.as_bytes()));
    format!("{start}{BETWEEN}{BETWEEN}{sum:032x}")
}

/// The name of a subscription's consumer, for its partition. `generation` counts the consumers that earlier versions of the bridge made for
/// changed patterns.
pub(crate) fn consumer(durable: &str, partition: Option<u32>, generation: u32) -> String {
    let partition = partition.map_or_else(String::new, |number| format!("=p{number}"));
    let generation = if generation == 0 { String::new() } else { format!("=g{generation}") };
    format!("{durable}{partition}{generation}")
}

/// FNV-1a: the same in every version of the bridge.
fn digest(bytes: &[u8]) -> u128 {
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013B;
    let mut sum: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in bytes {
        sum = (sum ^ u128::from(*byte)).wrapping_mul(PRIME);
    }
    sum
}

/// A segment of a type, encoded only where NATS requires it, so that the original reads it.
fn segment(text: &str) -> String {
    encoded(text, |byte| byte.is_ascii_graphic() && !matches!(byte, b'.' | b'*' | b'>' | b'='))
}

/// A type as the end of a subject.
pub(crate) fn type_tokens(event_type: &str) -> String {
    if event_type.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return event_type.to_owned();
    }
    event_type.split('.').map(segment).collect::<Vec<_>>().join(".")
}

/// The first tokens of the subjects of a partition's events, or of all events without partitions.
pub(crate) fn partition(prefix: &str, partition: Option<u32>) -> String {
    partition.map_or_else(|| prefix.to_owned(), |number| format!("{prefix}-p.{number}"))
}

/// The first tokens of the subjects of all events, as a filter.
pub(crate) fn events(prefix: &str, partitions: u32) -> String {
    if partitions == 0 { prefix.to_owned() } else { format!("{prefix}-p.*") }
}

/// The subject of a stream with a number of partitions.
pub(crate) fn of_stream(prefix: &str, partitions: u32) -> String {
    if partitions == 0 { format!("{prefix}.>") } else { format!("{prefix}-p.>") }
}

/// The filter below `prefix` for the events of a pattern. Exact for the subjects of this bridge: a lone `*` and `**` match everything.
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

/// Whether a filter matches every subject that another one matches, or a subject.
pub(crate) fn covers(wide: &str, narrow: &str) -> bool {
    let (mut wide, mut narrow) = (wide.split('.'), narrow.split('.'));
    loop {
        match (wide.next(), narrow.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// Whether some subject matches both filters.
fn overlap(one: &str, other: &str) -> bool {
    let (mut one, mut other) = (one.split('.'), other.split('.'));
    loop {
        match (one.next(), other.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(one), Some(other)) if one == other => {}
            _ => return false,
        }
    }
}

/// Filters that together match the subjects of all `filters`. JetStream refuses filters of a consumer that overlap: of two, the wider one stays,
/// and if neither covers the other, the result is `widest`.
pub(crate) fn union(filters: impl IntoIterator<Item = String>, widest: &str) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for filter in filters {
        if kept.iter().any(|it| covers(it, &filter)) {
            continue;
        }
        kept.retain(|it| !covers(&filter, it));
        if kept.iter().any(|it| overlap(it, &filter)) {
            return vec![widest.to_owned()];
        }
        kept.push(filter);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_contain_only_allowed_characters() {
        assert_eq!(token("aZ9-_"), "aZ9-_");
        assert_eq!(token("a.b*>c d=é\r\n"), "a=2Eb=2A=3Ec=20d=3D=C3=A9=0D=0A");
    }

    #[test]
    fn durable_names_are_distinct_and_never_too_long() {
        assert_eq!(durable("workers", "mail", ""), "workers==mail");
        assert_ne!(durable("a", "b==c", ""), durable("a", "b", "c"));
        assert_ne!(durable("a==b", "c", ""), durable("a", "b==c", ""));
        let (long, longer) = (durable(&"é".repeat(120), "a", ""), durable(&"é".repeat(120), "b", ""));
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
        let partitioned =
            |pattern: &str| filter(&partition("events", Some(3)), &Pattern::parse(pattern).expect("a pattern"));
        assert_eq!(partitioned("*"), "events-p.3.>");
        assert_eq!(partitioned("shop.**"), "events-p.3.*.shop.>");
        assert_eq!(filter(&events("events", 4), &Pattern::parse("shop.**").expect("a pattern")), "events-p.*.*.shop.>");
        assert_eq!(type_tokens("a>.b=ü"), "a=3E.b=3D=C3=BC");
        assert_eq!(type_tokens("shop.orders.create"), "shop.orders.create");
    }

    #[test]
    fn filters_of_a_union_do_not_overlap() {
        let union = |filters: &[&str]| union(filters.iter().map(|it| (*it).to_owned()), "e.>");
        assert_eq!(union(&["e.*.a", "e.*.b"]), ["e.*.a", "e.*.b"]);
        assert_eq!(union(&["e.*.a.*", "e.*.a.>", "e.*.a.b"]), ["e.*.a.>"]);
        assert_eq!(union(&["e.*.a.*", "e.*.*.b"]), ["e.>"], "neither covers the other");
        assert_eq!(union(&["e.*.a.b", "e.>"]), ["e.>"]);
        assert!(covers("e.>", "e.*.a") && !covers("e.*", "e.>") && !covers("e.>", "e") && covers("e.*.a", "e.x.a"));
    }
}
