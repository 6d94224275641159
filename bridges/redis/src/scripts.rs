//! What is more than one command is a script, so that it is one round trip, and nobody comes in between.

pub(crate) mod entry;
pub(crate) mod merge_scan;

use std::sync::OnceLock;

use redis::{RedisResult, Value};

use crate::transport::socket::Connection;

/// A script, and what the server calls it.
#[derive(Debug)]
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
script!(REGISTER_SUBSCRIPTION, "register_subscription");
script!(CLAIM_DELIVERIES, "match_pattern", "compare_entries", "claim_deliveries");
script!(ACK_ENTRIES, "ack_entries");
script!(RELEASE_LEASE, "release_lease");
script!(HOLD_PARTITIONS, "hold_partitions");
script!(COUNT_WAITING, "count_waiting");
script!(CHECK_BACKLOG, "find_holder", "parse_retry", "redeliver_due", "backlog_size", "check_backlog");
script!(REMOVE_CONSUMERS, "remove_consumers");
script!(RELEASE_HELD, "find_holder", "release_held");
script!(ADD_DEAD_LETTER, "find_holder", "note_failed", "add_dead_letter");
script!(DEFER_RETRY, "find_holder", "defer_retry");
script!(MARK_SUSPECT, "find_holder", "mark_suspect");
script!(EXTEND_LEASES, "extend_leases");
script!(SEND_HEARTBEAT, "send_heartbeat");
script!(RECORD_OUTCOME, "note_failed", "record_outcome");
script!(READ_STATUSES, "match_pattern", "compare_entries", "read_statuses");
script!(FIND_ENTRY, "find_entry");
script!(REDELIVER, "find_holder", "take_dead_letter", "note_failed", "redeliver");
script!(PURGE_DEAD_LETTERS, "take_dead_letter", "purge_dead_letters");
script!(REPLAY_EVENTS, "find_holder", "take_dead_letter", "note_failed", "replay_events");
script!(CHECK_LOSSES, "compare_entries", "check_losses");
script!(DELETE_ENTRY, "compare_entries", "parse_retry", "delete_entry");
script!(REMOVE_SUBSCRIPTIONS, "take_dead_letter", "parse_retry", "remove_subscriptions");

impl Script {
    /// Runs it on keys.
    pub(crate) fn run(&self, connection: &mut Connection, keys: &[&str], arguments: &[&[u8]]) -> RedisResult<Value> {
        let sha = match self.sha.get() {
            Some(sha) => sha.clone(),
            None => self.load(connection)?,
        };
        match evaluate(connection, &sha, keys, arguments) {
            // The server was started again, or somebody has emptied its cache.
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

fn evaluate(connection: &mut Connection, sha: &str, keys: &[&str], arguments: &[&[u8]]) -> RedisResult<Value> {
    let mut command = redis::cmd("EVALSHA");
    command.arg(sha).arg(keys.len()).arg(keys);
    arguments.iter().for_each(|argument| _ = command.arg(*argument));
    command.query(connection)
}
