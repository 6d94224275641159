//! A connection with its own thread, which runs calls one after the other. So the connection is never used inside an async runtime of
//! the program, and a caller can give up on a server that does not answer.
//!
//! The thread connects at the first call, and again after the connection was lost, as often as the backoff allows. A call whose caller
//! has given up does not begin.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::time::Duration;

use eventbroker::provider::BackendError;
use postgres::Error;

use super::address::Address;
use super::connection::Session;
use super::error::{backend_error, is_lost};
use super::thread::Thread;

/// How long a caller waits for an answer. Longer than the server's own limit on a statement.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(15);
type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// A handle on the thread, which ends when the handle is dropped.
pub(crate) struct Link {
    // Dropped first, so that the thread ends.
    jobs: Sender<Job>,
    _thread: Thread,
}

/// The state of the thread.
struct Worker {
    address: Arc<Address>,
    session: Option<Session>,
}

impl Link {
    /// Starts the thread. It connects at the first call.
    pub(crate) fn start(name: &str, address: &Arc<Address>) -> std::io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let mut worker = Worker { address: Arc::clone(address), session: None };
        let thread = Thread::start(name, move || queue.into_iter().for_each(|job| job(&mut worker)))?;
        Ok(Self { jobs, _thread: thread })
    }

    /// Runs `work` on the thread, and waits for it at most `limit`.
    pub(crate) fn call_within<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&mut Session) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, BackendError> {
        let (answer, answered) = sync_channel(1);
        let is_given_up = Arc::new(AtomicBool::new(false));
        let given_up = Arc::clone(&is_given_up);
        self.post(Box::new(move |worker| {
            if !given_up.load(Ordering::SeqCst) {
                // The caller may have given up meanwhile.
                let _ = answer.send(worker.run(work));
            }
        }));
        answered.recv_timeout(limit).unwrap_or_else(|_| {
            is_given_up.store(true, Ordering::SeqCst);
            Err(BackendError::Unavailable(format!("PostgreSQL has not answered within {limit:?}")))
        })
    }

    /// Runs `work` on the thread later, with the connection if there is one then. The caller does not wait.
    pub(crate) fn hint(&self, work: impl FnOnce(Option<&mut Session>) -> Result<(), Error> + Send + 'static) {
        self.post(Box::new(move |worker| {
            // A lost hint does no harm.
            let _ = match worker.session {
                Some(_) => worker.run(|session| work(Some(session))),
                None => work(None).map_err(|error| backend_error(&error)),
            };
        }));
    }

    fn post(&self, job: Job) {
        // If the thread has panicked, the caller's wait ends at once.
        let _ = self.jobs.send(job);
    }
}

impl Worker {
    fn run<T>(&mut self, work: impl FnOnce(&mut Session) -> Result<T, Error>) -> Result<T, BackendError> {
        let result = work(self.connected()?);
        result.map_err(|error| {
            if is_lost(&error) || self.session.as_ref().is_none_or(|session| session.client.is_closed()) {
                self.session = None;
            }
            backend_error(&error)
        })
    }

    fn connected(&mut self) -> Result<&mut Session, BackendError> {
        if self.session.as_mut().is_some_and(|session| !session.is_alive()) {
            self.session = None;
        }
        match &mut self.session {
            Some(session) => Ok(session),
            none => Ok(none.insert(Session::open(&self.address)?)),
        }
    }
}
