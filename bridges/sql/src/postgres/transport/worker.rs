//! The thread of a link, which runs its calls, and its replacement while a server leaves it without an answer.
//!
//! A thread that waits for a server can't be interrupted. So a second thread makes another session. If that one answers, and the server
//! runs no statement of the first, the second thread serves the queue from then on, and the first one ends when its connection does.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use eventbroker::provider::BackendError;
use parking_lot::Mutex;
use postgres::Error;

use super::activity::Activity;
use super::address::Address;
use super::bounded::{SILENCE, discard, within};
use super::connection::Session;
use super::error::{backend_error, is_lost, is_read_only};

/// The pause after a check that has replaced nothing.
const CHECK_AGAIN_AFTER: Duration = Duration::from_secs(5);

/// The work of a call.
pub(crate) type Run = Box<dyn FnOnce(&mut Worker) + Send>;
/// Answers the caller in place of a thread that is replaced.
pub(crate) type Abandon = Box<dyn FnOnce(BackendError) + Send>;

/// A call, to be run by the thread.
pub(crate) struct Job {
    pub(crate) run: Run,
    pub(crate) abandon: Abandon,
    pub(crate) count: Count,
}

/// Counts a call while it waits or runs. The call of a replaced thread does not count any more.
pub(crate) struct Count(Arc<AtomicUsize>);

impl Count {
    pub(crate) fn begin(calls: &Arc<AtomicUsize>) -> Self {
        calls.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(calls))
    }
}

impl Drop for Count {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The calls that wait. Only threads that serve them own it: without such a thread a call fails at once.
pub(crate) type Queue = Mutex<Receiver<Job>>;

/// The state that the threads of a link share with its callers.
pub(crate) struct Service {
    pub(crate) name: String,
    address: Arc<Address>,
    current: Mutex<Current>,
}

/// The thread that serves the queue.
#[derive(Default)]
struct Current {
    /// How often the thread was replaced.
    replacements: u64,
    running: Option<Running>,
    /// The check that runs, and when the last one began.
    check: Weak<()>,
    checked_at: Option<Instant>,
}

/// The call that the thread runs.
struct Running {
    /// The activity of its session. `None` while it connects, which has limits of its own.
    activity: Option<Arc<Activity>>,
    abandon: Abandon,
    count: Count,
}

/// A silent session, and the mark of the check that looks at it.
pub(crate) struct Check {
    silent: Arc<Activity>,
    _mark: Arc<()>,
}

impl Service {
    pub(crate) fn new(name: &str, address: &Arc<Address>) -> Arc<Self> {
        let (name, address, current) = (name.to_owned(), Arc::clone(address), Mutex::default());
        Arc::new(Self { name, address, current })
    }

    /// The first thread's state. It connects at the first call.
    pub(crate) fn worker(self: &Arc<Self>) -> Worker {
        Worker { service: Arc::clone(self), replacements: 0, session: None }
    }

    /// Begins a check if the session of the running call is silent, and no other check runs or has just run.
    pub(crate) fn begin_check(&self) -> Option<Check> {
        let mut current = self.current.lock();
        let silent = current.running.as_ref()?.activity.as_ref().filter(|it| it.age() >= SILENCE)?;
        let silent = Arc::clone(silent);
        let is_early = current.checked_at.is_some_and(|at| at.elapsed() < CHECK_AGAIN_AFTER);
        if is_early || current.check.strong_count() > 0 {
            return None;
        }
        let mark = Arc::default();
        (current.check, current.checked_at) = (Arc::downgrade(&mark), Some(Instant::now()));
        Some(Check { silent, _mark: mark })
    }

    /// Makes another session, which replaces the silent one if it learns from the server that no statement of it runs.
    pub(crate) fn replace(self: &Arc<Self>, check: Check) -> Option<Worker> {
        let session = Session::open(&self.address).ok()?;
        let silent = Arc::clone(&check.silent);
        let asked = within(SILENCE, move || {
            let mut session = session;
            silent.is_at_work(&mut session.client).map(|is_at_work| (!is_at_work).then_some(session))
        });
        let session = asked.ok()?.ok()??;
        let mut current = self.current.lock();
        // Its answer may have come meanwhile.
        let is_silent = |it: &Arc<Activity>| Arc::ptr_eq(it, &check.silent) && it.age() >= SILENCE;
        let running = current.running.take_if(|running| running.activity.as_ref().is_some_and(is_silent))?;
        current.replacements += 1;
        let replacements = current.replacements;
        drop(current);
        let problem = format!("a session has not answered within {SILENCE:?}, and another one does: it is replaced");
        tracing::warn!(connection = self.name, "PostgreSQL: {problem}");
        let Running { abandon, count, .. } = running;
        drop(count);
        abandon(BackendError::Unavailable(format!("PostgreSQL: {problem}")));
        let ended = within(SILENCE, move || {
            let mut session = session;
            // Without it, the server ends that session when it notices the loss of the connection.
            let _ = check.silent.end(&mut session.client);
            session
        });
        Some(Worker { service: Arc::clone(self), replacements, session: ended.ok() })
    }
}

/// The state of a thread.
pub(crate) struct Worker {
    service: Arc<Service>,
    /// The number of replacements before this thread.
    replacements: u64,
    pub(crate) session: Option<Session>,
}

impl Worker {
    /// Runs the calls one after the other, until the link is dropped or another thread has replaced this one.
    pub(crate) fn serve(mut self, queue: &Queue) {
        loop {
            let job = queue.lock().recv();
            let Ok(Job { run, abandon, count }) = job else { return };
            self.service.current.lock().running = Some(Running { activity: None, abandon, count });
            run(&mut self);
            if !self.end() {
                return;
            }
        }
    }

    /// Forgets the call. False if another thread has replaced this one.
    pub(crate) fn end(&self) -> bool {
        let mut current = self.service.current.lock();
        let is_current = current.replacements == self.replacements;
        if is_current {
            current.running = None;
        }
        is_current
    }

    pub(crate) fn run<T>(&mut self, work: impl FnOnce(&mut Session) -> Result<T, Error>) -> Result<T, BackendError> {
        let result = work(self.connected()?);
        result.map_err(|error| {
            if let (true, Some(session)) = (is_read_only(&error), &self.session) {
                self.service.address.leave(session.departures);
            }
            if is_lost(&error) || self.session.as_ref().is_none_or(|session| session.client.is_closed()) {
                self.session = None;
            }
            backend_error(&error)
        })
    }

    fn connected(&mut self) -> Result<&mut Session, BackendError> {
        let departures = self.service.address.departures();
        let is_usable = |session: &mut Session| session.departures == departures && session.is_alive();
        if let Some(session) = self.session.take_if(|session| !is_usable(session)) {
            discard(session);
        }
        let session = match &mut self.session {
            Some(session) => session,
            none => none.insert(Session::open(&self.service.address)?),
        };
        if let Some(running) = &mut self.service.current.lock().running {
            running.activity = Some(Arc::clone(&session.activity));
        }
        Ok(session)
    }
}

/// The caller of a call that has panicked is not kept waiting.
impl Drop for Worker {
    fn drop(&mut self) {
        self.end();
    }
}
