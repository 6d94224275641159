//! A link to the server together with the names of the keys.

use std::sync::Arc;

use eventbroker::provider::BackendError;
use redis::{Cmd, FromRedisValue, Pipeline};

use super::{Layout, Script};
use crate::transport::{Link, Server};

pub(crate) struct Client {
    pub(crate) layout: Arc<Layout>,
    pub(crate) link: Link,
}

impl Client {
    pub(crate) fn new(server: &Arc<Server>, layout: &Arc<Layout>) -> Self {
        Self { layout: Arc::clone(layout), link: Link::new(server) }
    }

    /// Sends a blocking request. Returns nothing if its stream is removed meanwhile.
    pub(crate) fn wait<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<Option<T>, BackendError> {
        self.link.call(|connection| match command.query(connection) {
            Err(error) if error.code() == Some("UNBLOCKED") => Ok(None),
            reply => reply,
        })
    }

    pub(crate) fn query<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, BackendError> {
        self.link.call(|connection| command.query(connection))
    }

    /// Sends commands in one round trip, if there are any. Fails with the first refusal.
    pub(crate) fn send(&mut self, commands: &Pipeline) -> Result<(), BackendError> {
        if commands.is_empty() { Ok(()) } else { self.link.call(|connection| commands.query(connection)) }
    }

    /// Runs a script on the prefix and all streams.
    pub(crate) fn run<T: FromRedisValue>(
        &mut self,
        script: &Script,
        arguments: &[impl AsRef<[u8]>],
    ) -> Result<T, BackendError> {
        let layout = Arc::clone(&self.layout);
        let keys: Vec<&str> = [&layout.prefix].into_iter().chain(&layout.streams).map(String::as_str).collect();
        self.run_on(script, &keys, arguments)
    }

    pub(crate) fn run_on<T: FromRedisValue>(
        &mut self,
        script: &Script,
        keys: &[&str],
        arguments: &[impl AsRef<[u8]>],
    ) -> Result<T, BackendError> {
        self.link.call(|connection| script.run(connection, keys, arguments))
    }

    /// A failure of which the server is the subject.
    pub(crate) fn unavailable(&self, problem: impl std::fmt::Display) -> BackendError {
        self.link.server.unavailable(problem)
    }
}
