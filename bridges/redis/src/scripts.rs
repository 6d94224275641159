//! The data at the server: names of keys, the form of entries, reads that others build on, and the scripts. A script is one round trip, and
//! no other command runs in between. Scripts of several parts share the parts.
//!
//! The head of a script has its keys, arguments, result and costs; that of a part is one line, which begins with `-- Part of a script`.

mod client;
mod entry;
mod group;
mod id_time;
mod layout;
mod locate;
mod merge_scan;
mod value;

use std::sync::OnceLock;

use redis::{FromRedisValue, RedisResult};

use crate::transport::Connection;

pub(crate) use client::Client;
pub(crate) use entry::{Entry, content_hash, earliest, event_of, from_json, id_parts, latest, to_json};
pub(crate) use group::{first_open, last_delivered};
pub(crate) use id_time::{TOLERANCE, id_bucket};
pub(crate) use layout::{Layout, partitions_key};
pub(crate) use locate::locate;
pub(crate) use merge_scan::{Located, MergeScan, entries_at, merge};
pub(crate) use value::{flag, millis, since_epoch};

/// A script and, once it is loaded, its hash.
pub(crate) struct Script {
    parts: &'static [&'static str],
    sha: OnceLock<String>,
}

macro_rules! script {
    ($name:ident, $($part:literal),+) => {
        pub(crate) static $name: Script =
            Script { parts: &[$(include_str!(concat!("scripts/", $part, ".lua"))),+], sha: OnceLock::new() };
    };
}

script!(STORE_EVENTS, "store_events");
script!(REGISTER_SUBSCRIPTION, "read_figures", "read_clock", "register_subscription");
script!(REMOVE_SUBSCRIPTIONS, "take_dead_letter", "parse_retry", "read_field", "remove_subscriptions");
script!(SEND_HEARTBEAT, "read_clock", "send_heartbeat");
script!(HOLD_PARTITIONS, "notify_members", "read_clock", "hold_partitions");
script!(COUNT_WAITING, "read_figures", "count_waiting");
script!(CLAIM_DELIVERIES, "compare_entries", "match_pattern", "read_field", "read_clock", "claim_deliveries");
script!(EXTEND_LEASES, "extend_leases");
script!(RELEASE_HELD, "find_holder", "notify_members", "release_held");
script!(
    ADD_DEAD_LETTER,
    "find_holder",
    "check_holder",
    "end_delivery",
    "raise_retries",
    "note_failed",
    "add_dead_letter"
);
script!(DEFER_RETRY, "find_holder", "check_holder", "end_delivery", "raise_retries", "read_clock", "defer_retry");
script!(MARK_SUSPECT, "find_holder", "mark_suspect");
script!(RECORD_OUTCOME, "note_failed", "record_outcome");
script!(READ_STATUSES, "read_figures", "compare_entries", "match_pattern", "read_statuses");
script!(FIND_ENTRY, "read_field", "find_entry");
script!(DELETE_ENTRY, "read_figures", "compare_entries", "parse_retry", "read_field", "delete_entry");
script!(REDELIVER, "notify_members", "take_dead_letter", "note_failed", "redeliver");
script!(PURGE_DEAD_LETTERS, "take_dead_letter", "purge_dead_letters");
script!(REPLAY_EVENTS, "find_holder", "notify_members", "take_dead_letter", "note_failed", "replay_events");
script!(
    CHECK_BACKLOG,
    "read_figures",
    "notify_members",
    "parse_retry",
    "read_clock",
    "redeliver_due",
    "backlog_size",
    "check_backlog"
);
script!(CHECK_LOSSES, "read_figures", "compare_entries", "check_losses");
script!(REMOVE_CONSUMERS, "read_figures", "remove_consumers");

impl Script {
    fn run<T: FromRedisValue>(
        &self,
        connection: &mut Connection,
        keys: &[&str],
        arguments: &[impl AsRef<[u8]>],
    ) -> RedisResult<T> {
        let sha = match self.sha.get() {
            Some(sha) => sha.clone(),
            None => self.load(connection)?,
        };
        match evaluate(connection, &sha, keys, arguments) {
            // The server was started again, or its script cache was flushed.
            Err(error) if error.code() == Some("NOSCRIPT") => {
                let sha = self.load(connection)?;
                evaluate(connection, &sha, keys, arguments)
            }
            result => result,
        }
    }

    fn load(&self, connection: &mut Connection) -> RedisResult<String> {
        let sha: String = redis::cmd("SCRIPT").arg("LOAD").arg(self.parts.concat()).query(connection)?;
        Ok(self.sha.get_or_init(|| sha).clone())
    }
}

fn evaluate<T: FromRedisValue>(
    connection: &mut Connection,
    sha: &str,
    keys: &[&str],
    arguments: &[impl AsRef<[u8]>],
) -> RedisResult<T> {
    let mut command = redis::cmd("EVALSHA");
    command.arg(sha).arg(keys.len()).arg(keys);
    arguments.iter().for_each(|argument| _ = command.arg(argument.as_ref()));
    command.query(connection)
}
