//! Dividing a stream anew: into more or fewer partitions, or into one stream that members compete for. Nobody may use it meanwhile, and nothing
//! may wait in it, or what waits would be handled out of order.

use crate::scripts::entry::number;
use crate::transport::link::{Database, Link};
use crate::{OpenError, scripts};

/// Where it is written down into how many partitions a stream is divided.
pub(crate) fn key(stream: &str) -> String {
    format!("{stream}:partitions")
}

/// Divides what `from` stands for as `to` says. What was handled stays as far as there is a stream for it.
pub(crate) fn divide(link: &mut Link, name: &str, from: &Database, to: &Database) -> Result<(), OpenError> {
    let refused = |problem: String| Err(OpenError::Setting(format!("the stream {name:?} can't be divided: {problem}")));
    let mut used = keys(link, &from.key("boot:*"))?;
    used.extend(keys(link, &from.key("instance:*"))?);
    if !used.is_empty() {
        return refused(format!("{} instances use it, or did so less than ten leases ago", used.len().div_ceil(2)));
    }
    let waits =
        number(link.run_for(from, &scripts::COUNT_WAITING, &[]).map_err(OpenError::of)?).map_err(OpenError::of)?;
    if waits > 0 {
        return refused(format!("{waits} deliveries wait"));
    }
    let call = |link: &mut Link, words: &[&str]| {
        let mut command = redis::cmd(words[0]);
        words[1..].iter().for_each(|word| _ = command.arg(*word));
        link.call(|connection| command.query::<redis::Value>(connection)).map_err(OpenError::of)
    };
    for stream in from.streams.iter().skip(to.streams.len()) {
        for of_stream in keys(link, &format!("{stream}*"))? {
            call(link, &["DEL", &of_stream])?;
        }
    }
    if from.prefix != to.prefix {
        for other in keys(link, &from.key("*"))? {
            let rest = &other[from.prefix.len()..];
            // What is written down of a stream is beside the stream: the first partition takes the place of the one stream.
            let (first, first_to) = (&from.streams[0], &to.streams[0]);
            let renamed = match other.strip_prefix(first.as_str()) {
                Some(rest) if OF_A_STREAM.contains(&rest) => format!("{first_to}{rest}"),
                _ if other == key(name) => continue,
                _ => format!("{}{rest}", to.prefix),
            };
            call(link, &["RENAME", &other, &renamed])?;
        }
        if !keys(link, &from.streams[0])?.is_empty() {
            call(link, &["RENAME", &from.streams[0], &to.streams[0]])?;
        }
    }
    call(link, &["SET", &key(name), &to.partitions.to_string()])?;
    Ok(())
}

/// What is written down of each stream, behind its name.
const OF_A_STREAM: [&str; 8] = ["", ":seen", ":read", ":ended", ":given", ":taken", ":lost", ":life"];

/// The keys that a pattern with `*` at its end matches.
fn keys(link: &mut Link, pattern: &str) -> Result<Vec<String>, OpenError> {
    let (mut found, mut cursor) = (Vec::new(), 0_u64);
    let literal: String = pattern.trim_end_matches('*').chars().flat_map(escaped).collect();
    let end = if pattern.ends_with('*') { "*" } else { "" };
    loop {
        let (next, some): (u64, Vec<String>) = link
            .call(|it| {
                redis::cmd("SCAN")
                    .arg(cursor)
                    .arg("MATCH")
                    .arg(format!("{literal}{end}"))
                    .arg("COUNT")
                    .arg(1_000)
                    .query(it)
            })
            .map_err(OpenError::of)?;
        found.extend(some);
        cursor = next;
        if cursor == 0 {
            found.sort();
            found.dedup();
            return Ok(found);
        }
    }
}

/// A character of a pattern that stands for itself.
fn escaped(letter: char) -> impl Iterator<Item = char> {
    let special = matches!(letter, '*' | '?' | '[' | ']' | '\\');
    special.then_some('\\').into_iter().chain([letter])
}
