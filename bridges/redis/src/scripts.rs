//! What is more than one command is a script, so that it is one round trip, and nobody comes in between.

use std::sync::OnceLock;

use redis::{RedisResult, Value};

use crate::socket::Connection;

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

script!(PUBLISH, "publish");
script!(REGISTER, "register");
script!(CLAIM, "matches", "entries", "claim");
script!(ACK, "ack");
script!(BACK, "back");
script!(OWN, "own");
script!(WAITS, "waits");
script!(LOOK, "held", "later", "due", "behind", "look");
script!(REAP, "reap");
script!(RELEASE, "held", "release");
script!(BURY, "held", "failed", "bury");
script!(DEFER, "held", "defer");
script!(MARK, "held", "mark");
script!(EXTEND, "extend");
script!(ALIVE, "alive");
script!(TELL, "failed", "tell");
script!(STATUS, "matches", "entries", "status");
script!(FIND, "find");
script!(AGAIN, "held", "letters", "failed", "again");
script!(PURGE, "letters", "purge");
script!(REPLAY, "held", "letters", "failed", "replay");
script!(WATCH, "entries", "watch");
script!(DELETE, "entries", "later", "delete");
script!(FORGET, "letters", "later", "forget");

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
