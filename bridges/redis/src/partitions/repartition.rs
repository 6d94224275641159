//! The recorded number of partitions of a stream, and its change: into more or fewer partitions, or into one stream for which members
//! compete. No instance may use the stream meanwhile, and nothing may wait in it: waiting deliveries would lose their order.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::scripts::{COUNT_WAITING, Client, Layout, partitions_key};
use crate::settings::{OpenError, Redis};
use crate::transport::Link;

/// The keys of each stream, by what follows its name; and those of earlier versions, which are not needed any more.
const OF_A_STREAM: [&str; 5] = ["", ":checked", ":deleted", ":lost", ":life"];
const OBSOLETE: [&str; 5] = [":seen", ":read", ":ended", ":given", ":taken"];

/// The recorded number of partitions of a stream, if there is one.
pub(crate) fn recorded_partitions(link: &mut Link, stream_name: &str) -> Result<Option<u32>, OpenError> {
    Ok(link.call(|it| redis::cmd("GET").arg(partitions_key(stream_name)).query(it))?)
}

/// Checks that the recorded number is that of the settings. The first provider of a stream records it.
pub(crate) fn check_partitions(link: &mut Link, settings: &Redis) -> Result<(), OpenError> {
    let (name, partitions) = (&settings.stream_name, settings.partitions);
    let mut record = redis::cmd("SET");
    record.arg(partitions_key(name)).arg(partitions).arg("NX").arg("GET");
    let recorded: Option<u32> = link.call(|connection| record.query(connection))?;
    match recorded.filter(|recorded| *recorded != partitions) {
        None => Ok(()),
        Some(recorded) => Err(OpenError::Setting(format!(
            "partitions: is {partitions}, but the stream {name:?} has {recorded}; `eventbroker admin repartition` divides it anew"
        ))),
    }
}

/// Changes the partitions of a stream from the client's layout to another. Handled entries stay if there is a stream for them.
pub(crate) fn repartition(client: &mut Client, name: &str, to: &Layout) -> Result<(), OpenError> {
    let from = Arc::clone(&client.layout);
    let refused =
        |problem: String| Err(OpenError::Setting(format!("the stream {name:?} can't be repartitioned: {problem}")));
    let mut used = keys(client, &from.key("boot:*"))?;
    used.extend(keys(client, &from.key("instance:*"))?);
    if !used.is_empty() {
        return refused(format!("{} instances use it, or did so less than ten leases ago", used.len().div_ceil(2)));
    }
    let waiting: i64 = client.run(&COUNT_WAITING, &[""; 0])?;
    if waiting > 0 {
        return refused(format!("{waiting} deliveries wait"));
    }
    for stream in from.streams.iter().skip(to.streams.len()) {
        for key in keys(client, &format!("{stream}*"))? {
            call(client, &["DEL", &key])?;
        }
    }
    if from.prefix != to.prefix {
        let (first, first_to) = (&from.streams[0], &to.streams[0]);
        for key in keys(client, &from.key("*"))? {
            // The first partition takes the place of the one stream, with the keys of that stream.
            let renamed = match key.strip_prefix(first.as_str()) {
                _ if key == partitions_key(name) => continue,
                Some(rest) if OBSOLETE.contains(&rest) => {
                    call(client, &["DEL", &key])?;
                    continue;
                }
                Some(rest) if OF_A_STREAM.contains(&rest) => format!("{first_to}{rest}"),
                _ => format!("{}{}", to.prefix, &key[from.prefix.len()..]),
            };
            call(client, &["RENAME", &key, &renamed])?;
        }
        if !keys(client, first)?.is_empty() {
            call(client, &["RENAME", first, first_to])?;
        }
    }
    call(client, &["SET", &partitions_key(name), &to.partitions.to_string()])
}

fn call(client: &mut Client, words: &[&str]) -> Result<(), OpenError> {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    Ok(client.query(&command)?)
}

/// The keys that a pattern matches. Only a `*` at its end is special.
fn keys(client: &mut Client, pattern: &str) -> Result<Vec<String>, OpenError> {
    let literal: String = pattern.trim_end_matches('*').chars().flat_map(escaped).collect();
    let matching = if pattern.ends_with('*') { format!("{literal}*") } else { literal };
    let mut scan = redis::cmd("SCAN");
    scan.cursor_arg(0).arg("MATCH").arg(matching).arg("COUNT").arg(1_000);
    let found: BTreeSet<String> = client.link.call(|connection| scan.iter::<String>(connection)?.collect())?;
    Ok(found.into_iter().collect())
}

/// A character of a pattern without its special meaning.
fn escaped(letter: char) -> impl Iterator<Item = char> {
    let special = matches!(letter, '*' | '?' | '[' | ']' | '\\');
    special.then_some('\\').into_iter().chain([letter])
}
