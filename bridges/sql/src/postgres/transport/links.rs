//! The connections of a provider. A call takes the one with the fewest calls.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eventbroker::provider::BackendError;
use postgres::Error;

use super::address::Address;
use super::connection::Session;
use super::link::Link;

/// A handle on the connections, or on some of them.
#[derive(Clone)]
pub(crate) struct Links {
    all: Arc<[Connection]>,
    /// The connections that this handle does not use are the first ones.
    first: usize,
}

/// One of the connections.
struct Connection {
    link: Link,
    is_used: AtomicBool,
}

impl Links {
    /// Starts a thread for each of `count` connections. Each connects at its first call.
    pub(crate) fn start(count: usize, address: &Arc<Address>) -> io::Result<Self> {
        let start = |number| {
            let link = Link::start(&format!("link-{number}"), address)?;
            Ok(Connection { link, is_used: AtomicBool::new(false) })
        };
        let all = (1..=count).map(start).collect::<io::Result<Vec<_>>>()?;
        Ok(Self { all: all.into(), first: 0 })
    }

    /// A handle on the last connection alone. Its calls run one after the other, so however long they take, the other connections stay
    /// free.
    pub(crate) fn last(&self) -> Self {
        Self { all: Arc::clone(&self.all), first: self.all.len() - 1 }
    }

    /// Runs `work` on the thread of a connection, and waits for it at most `limit`.
    pub(crate) fn call_within<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&mut Session) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, BackendError> {
        let chosen = least_busy(self.all[self.first..].iter());
        let Some(chosen) = chosen else { return Err(BackendError::Unavailable("there is no connection".to_owned())) };
        chosen.is_used.store(true, Ordering::Relaxed);
        chosen.link.call_within(limit, work)
    }

    /// Runs `work` later, with a connection that was used before. The caller does not wait.
    pub(crate) fn hint(&self, work: impl FnOnce(Option<&mut Session>) -> Result<(), Error> + Send + 'static) {
        let used = self.all.iter().filter(|it| it.is_used.load(Ordering::Relaxed));
        let Some(chosen) = least_busy(used).or(self.all.last()) else { return };
        chosen.link.hint(work);
    }
}

fn least_busy<'a>(links: impl Iterator<Item = &'a Connection>) -> Option<&'a Connection> {
    links.min_by_key(|it| it.link.calls())
}
