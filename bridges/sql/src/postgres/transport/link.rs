//! A connection with its own thread, which runs calls one after the other. So the connection is never used inside an async runtime of
//! the program, and a caller can give up on a server that does not answer.
//!
//! The thread connects at the first call, and again after the connection was lost, as often as the backoff allows. A call whose caller
//! has given up does not begin. A caller that waits has the thread replaced if its session is silent (`worker`).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use eventbroker::provider::BackendError;
use parking_lot::Mutex;
use postgres::Error;

use super::address::Address;
use super::connection::Session;
use super::error::backend_error;
use super::thread::Thread;
use super::worker::{Abandon, Count, Job, Queue, Run, Service, Worker};

/// How long a caller waits for an answer. Longer than the server's own limit on a statement.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(15);
/// How often a waiting caller checks whether the session is silent.
const CHECK_EVERY: Duration = Duration::from_secs(1);

/// A handle on the thread, which ends when the handle is dropped.
pub(crate) struct Link {
    // Dropped first, so that the thread ends.
    jobs: Sender<Job>,
    queue: Weak<Queue>,
    service: Arc<Service>,
    /// The calls that wait or run.
    calls: Arc<AtomicUsize>,
    /// The thread, and those that it has replaced and that wait for a server.
    threads: Mutex<Vec<Thread>>,
}

impl Link {
    /// Starts the thread. It connects at the first call.
    pub(crate) fn start(name: &str, address: &Arc<Address>) -> std::io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let (service, queue) = (Service::new(name, address), Arc::new(Queue::new(queue)));
        let (worker, weak) = (service.worker(), Arc::downgrade(&queue));
        let thread = Thread::start(name, move || worker.serve(&queue))?;
        Ok(Self { jobs, queue: weak, service, calls: Arc::default(), threads: Mutex::new(vec![thread]) })
    }

    /// The number of calls that wait or run.
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Runs `work` on the thread, and waits for it at most `limit`.
    pub(crate) fn call_within<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce(&mut Session) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, BackendError> {
        let (answer, answered) = sync_channel(1);
        let is_given_up = Arc::new(AtomicBool::new(false));
        let (given_up, other) = (Arc::clone(&is_given_up), answer.clone());
        // The caller may have given up meanwhile, or have been answered in place of this thread.
        let run = Box::new(move |worker: &mut Worker| {
            if !given_up.load(Ordering::SeqCst) {
                let result = worker.run(work);
                // Once it is answered, the caller may make the next call, which should find this connection free.
                worker.end();
                let _ = answer.try_send(result);
            }
        });
        self.post(run, Box::new(move |error| _ = other.try_send(Err(error))));
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match answered.recv_timeout(left.min(CHECK_EVERY)) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) if left > CHECK_EVERY => self.check(),
                Err(_) => {
                    is_given_up.store(true, Ordering::SeqCst);
                    return Err(BackendError::Unavailable(format!("PostgreSQL has not answered within {limit:?}")));
                }
            }
        }
    }

    /// Runs `work` on the thread later, with the connection if there is one then. The caller does not wait.
    pub(crate) fn hint(&self, work: impl FnOnce(Option<&mut Session>) -> Result<(), Error> + Send + 'static) {
        let run = Box::new(move |worker: &mut Worker| {
            // A lost hint does no harm.
            let _ = match worker.session {
                Some(_) => worker.run(|session| work(Some(session))),
                None => work(None).map_err(|error| backend_error(&error)),
            };
        });
        self.post(run, Box::new(drop));
    }

    fn post(&self, run: Run, abandon: Abandon) {
        // If the thread has panicked, the caller's wait ends at once.
        let _ = self.jobs.send(Job { run, abandon, count: Count::begin(&self.calls) });
    }

    /// Checks on another thread whether the session of the running call is silent, and replaces it then.
    fn check(&self) {
        let (Some(queue), Some(check)) = (self.queue.upgrade(), self.service.begin_check()) else { return };
        let service = Arc::clone(&self.service);
        let thread = Thread::start(&self.service.name, move || {
            if let Some(worker) = service.replace(check) {
                worker.serve(&queue);
            }
        });
        match thread {
            Ok(thread) => {
                let mut threads = self.threads.lock();
                threads.retain(|thread| !thread.has_ended());
                threads.push(thread);
            }
            Err(error) => tracing::warn!(%error, "the thread that replaces a silent connection could not be started"),
        }
    }
}
