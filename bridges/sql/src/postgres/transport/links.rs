//! The connections of a provider. A call takes the one with the fewest calls.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use eventbroker::provider::BackendError;
use postgres::Error;

use super::address::Address;
use super::connection::Session;
use super::link::Link;

/// A handle on the connections, or on some of them.
#[derive(Clone)]
pub(crate) struct Links {
    all: Arc<[Counted]>,
    /// The connections that this handle does not use are the first ones.
    first: usize,
}

struct Counted {
    link: Link,
    /// The calls that wait or run.
    calls: Arc<AtomicUsize>,
    is_used: AtomicBool,
}

/// Counts a call until it has run or was dropped.
struct Call(Arc<AtomicUsize>);

impl Links {
    /// Starts a thread for each of `count` connections. Each connects at its first call.
    pub(crate) fn start(count: usize, address: &Arc<Address>) -> io::Result<Self> {
        let start = |number| {
            let link = Link::start(&format!("link-{number}"), address)?;
            Ok(Counted { link, calls: Arc::default(), is_used: AtomicBool::new(false) })
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
        let call = Call::begin(&chosen.calls);
        chosen.link.call_within(limit, move |session| {
            let _call = call;
            work(session)
        })
    }

    /// Runs `work` later, with a connection that was used before. The caller does not wait.
    pub(crate) fn hint(&self, work: impl FnOnce(Option<&mut Session>) -> Result<(), Error> + Send + 'static) {
        let used = self.all.iter().filter(|it| it.is_used.load(Ordering::Relaxed));
        let Some(chosen) = least_busy(used).or(self.all.last()) else { return };
        let call = Call::begin(&chosen.calls);
        chosen.link.hint(move |session| {
            let _call = call;
            work(session)
        });
    }
}

fn least_busy<'a>(links: impl Iterator<Item = &'a Counted>) -> Option<&'a Counted> {
    links.min_by_key(|it| it.calls.load(Ordering::Relaxed))
}

impl Call {
    fn begin(calls: &Arc<AtomicUsize>) -> Self {
        calls.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(calls))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
