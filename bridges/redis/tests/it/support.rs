//! Shared helpers: a client of the server, and the helpers of all bridges' tests.

use std::sync::OnceLock;

use eventbroker::Broker;
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;
use redis::Connection;

pub(crate) use eventbroker_conformance::watch::{PATIENCE, event, listen, wait_until};

pub(crate) fn client(url: &str) -> Connection {
    redis::Client::open(url).and_then(|client| client.get_connection()).expect("it connects")
}

pub(crate) fn ask<T: redis::FromRedisValue>(connection: &mut Connection, command: &[&str]) -> T {
    let mut asked = redis::cmd(command[0]);
    command[1..].iter().for_each(|argument| _ = asked.arg(*argument));
    asked.query(connection).expect("an answer")
}

pub(crate) fn start(redis: &Redis) -> Broker {
    Broker::builder().provider(redis.open().expect("it opens")).start().expect("it starts")
}

/// Waits until the last loss check of every subscription of a stream has recorded `added` entries.
pub(crate) fn wait_for_check(client: &mut Connection, stream: &str, added: usize) {
    let added = added.to_string();
    wait_until("it is checked", || {
        let checked: Vec<String> = ask(client, &["HVALS", &format!("{stream}:checked")]);
        !checked.is_empty() && checked.iter().all(|checked| checked.split(' ').nth(1) == Some(&added))
    });
}

/// The shared server of this process, for tests that use their own stream and do not change the server.
pub(crate) fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}
