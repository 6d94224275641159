//! The bridge thread. It holds one session at a time, in a tokio runtime of its own. When the session's connection is lost, or a request is not
//! answered in time, the runtime ends with all its work: nothing that was sent before goes out later, on another connection, behind newer
//! requests. The next job connects again.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_nats::connection::State;
use eventbroker::provider::{BackendError, Backoff};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime as Tokio};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::address::Address;
use super::client;
use super::consume_conn::ConsumeConn;
use super::publish_answers::PublishAnswers;
use super::request_mux::RequestMux;
use super::session::Session;

/// How long a call may take.
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(2);
/// How long a call with many requests may take.
const LONG_LIMIT: Duration = Duration::from_secs(30);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type Job = Box<dyn FnOnce(Result<Session, BackendError>) -> Option<Work> + Send>;

/// The handle of the bridge thread. Its drop ends the thread.
pub(crate) struct Runtime {
    jobs: Option<UnboundedSender<Job>>,
    thread: Option<JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    address: Arc<Address>,
    backoff: Arc<Backoff>,
    generation: AtomicU64,
    is_replicated: Arc<AtomicBool>,
    stop: Notify,
    stopping: AtomicBool,
    /// Called when a session ends.
    on_loss: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Runtime {
    pub(super) fn start(address: Arc<Address>, backoff: Arc<Backoff>) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            address,
            backoff,
            generation: AtomicU64::new(1),
            is_replicated: Arc::default(),
            stop: Notify::new(),
            stopping: AtomicBool::new(false),
            on_loss: Mutex::default(),
        });
        let (jobs, queue) = unbounded_channel();
        let on_thread = Arc::clone(&shared);
        let thread = thread::Builder::new().name("eventbroker-nats".to_owned()).spawn(move || on_thread.run(queue))?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), shared })
    }

    /// Sets the call at the end of a session.
    pub(crate) fn on_loss(&self, call: impl Fn() + Send + 'static) {
        *self.shared.on_loss.lock() = Some(Box::new(call));
    }

    /// The number of the present session, or of the next one.
    pub(crate) fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::SeqCst)
    }

    /// Runs work on the session and waits for its result, within the limit of a call.
    pub(crate) fn call<T, F, A>(&self, work: F) -> Result<T, BackendError>
    where
        T: Send + 'static,
        F: FnOnce(Session) -> A + Send + 'static,
        A: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        let received = receive(&self.begin(CALL_LIMIT, work), CALL_LIMIT);
        received.unwrap_or_else(|error| Err(self.lost(error)))
    }

    /// [`call`](Self::call) for many requests.
    pub(crate) fn call_long<T, F, A>(&self, work: F) -> Result<T, BackendError>
    where
        T: Send + 'static,
        F: FnOnce(Session) -> A + Send + 'static,
        A: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        let received = receive(&self.begin(LONG_LIMIT, work), LONG_LIMIT);
        received.unwrap_or_else(|error| Err(self.lost(error)))
    }

    /// [`call_long`](Self::call_long) for requests that only read: a lost connection repeats them once.
    pub(crate) fn read<T, F, A>(&self, work: F) -> Result<T, BackendError>
    where
        T: Send + 'static,
        F: FnOnce(Session) -> A + Clone + Send + 'static,
        A: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        match receive(&self.begin(LONG_LIMIT, work.clone()), LONG_LIMIT) {
            Err(RecvTimeoutError::Disconnected) => self.call_long(work),
            received => received.unwrap_or_else(|error| Err(self.lost(error))),
        }
    }

    fn begin<T, F, A>(&self, limit: Duration, work: F) -> Receiver<Result<T, BackendError>>
    where
        T: Send + 'static,
        F: FnOnce(Session) -> A + Send + 'static,
        A: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        let (sender, answer) = sync_channel(1);
        let place = self.shared.address.place.clone();
        self.post(move |session| match session {
            Ok(session) => Some(Box::pin(bounded(session, sender, place, limit, work)) as Work),
            Err(error) => {
                answer_with(&sender, Err(error));
                None
            }
        });
        answer
    }

    /// Hands a job to the bridge thread and does not wait. A job that cannot run is dropped.
    pub(crate) fn post(&self, job: impl FnOnce(Result<Session, BackendError>) -> Option<Work> + Send + 'static) {
        if let Some(jobs) = &self.jobs {
            // The send fails only after a panic of the thread; the drop of the job then wakes its caller.
            let _ = jobs.send(Box::new(job));
        }
    }

    /// Ends the session, if there is one.
    pub(crate) fn give_up(&self, why: &'static str) {
        self.post(move |session| {
            session.ok()?.give_up(why);
            None
        });
    }

    fn lost(&self, error: RecvTimeoutError) -> BackendError {
        let problem = match error {
            RecvTimeoutError::Disconnected => "the connection was lost",
            RecvTimeoutError::Timeout => "no answer",
        };
        BackendError::Unavailable(format!("{}: {problem}", self.shared.address.place))
    }
}

/// Waits for the result of a call: time to connect, the call's limit and a second.
fn receive<T>(answer: &Receiver<T>, limit: Duration) -> Result<T, RecvTimeoutError> {
    answer.recv_timeout(Backoff::CONNECT_LIMIT + limit + Duration::from_secs(1))
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.stop.notify_one();
        drop(self.jobs.take());
        // A drop on the bridge thread itself must not wait for it.
        if let Some(thread) = self.thread.take().filter(|it| it.thread().id() != thread::current().id()) {
            // A panic of the thread has been reported by its hook.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("place", &self.shared.address.place).finish_non_exhaustive()
    }
}

/// Sends the result of a call. Its caller may have given up.
fn answer_with<T>(sender: &SyncSender<Result<T, BackendError>>, answer: Result<T, BackendError>) {
    let _ = sender.try_send(answer);
}

/// Runs the work of a call. If it takes longer than `limit`, the session ends: a late answer, or an unsent part, would come between later ones.
async fn bounded<T, F, A>(
    session: Session,
    sender: SyncSender<Result<T, BackendError>>,
    place: String,
    limit: Duration,
    work: F,
) where
    F: FnOnce(Session) -> A,
    A: Future<Output = Result<T, BackendError>>,
{
    match tokio::time::timeout(limit, work(session.clone())).await {
        Ok(answer) => answer_with(&sender, answer),
        Err(_) => {
            answer_with(&sender, Err(BackendError::Unavailable(format!("{place}: no answer within {limit:?}"))));
            session.give_up("a call was not answered");
        }
    }
}

impl Shared {
    fn run(self: Arc<Self>, mut queue: UnboundedReceiver<Job>) {
        while let Some(job) = queue.blocking_recv() {
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            let mut runtime = None;
            let connected = self.backoff.attempt(|| {
                let made = Builder::new_current_thread().enable_all().thread_keep_alive(Duration::ZERO).build();
                let made = made.map_err(|error| format!("{}: no runtime: {error}", self.address.place))?;
                let session = made.block_on(self.connect())?;
                runtime = Some(made);
                Ok(session)
            });
            match (connected, runtime) {
                (Ok(session), Some(runtime)) => {
                    runtime.block_on(self.serve(session, job, &mut queue));
                    end(runtime);
                    self.generation.fetch_add(1, Ordering::SeqCst);
                    if let Some(call) = &*self.on_loss.lock() {
                        call();
                    }
                }
                (Err(error), runtime) => {
                    job(Err(error));
                    if let Some(runtime) = runtime {
                        end(runtime);
                    }
                }
                (Ok(_), None) => {}
            }
        }
    }

    async fn connect(self: &Arc<Self>) -> Result<Session, String> {
        let place = &self.address.place;
        let broken = Arc::new(Notify::new());
        let (lost, was_connected) = (Arc::clone(&broken), Arc::new(AtomicBool::new(false)));
        let connected = Arc::clone(&was_connected);
        let is_first = move || !connected.load(Ordering::SeqCst);
        let options = client::options(&self.address, is_first, move || lost.notify_one())?;
        let connecting = client::connect(&self.address, options);
        let client = tokio::select! {
            biased;
            connected = connecting => connected?,
            () = self.stop.notified() => return Err(format!("{place}: the broker ends")),
        };
        was_connected.store(true, Ordering::SeqCst);
        let generation = self.generation.load(Ordering::SeqCst);
        let mux = RequestMux::start(&client).await.map_err(|error| format!("{place}: {error}"))?;
        let published = PublishAnswers::start(&client).await.map_err(|error| format!("{place}: {error}"))?;
        let conn = ConsumeConn::new(&client, &mux, &broken);
        Ok(Session { client, conn, mux, published, generation, broken, is_replicated: Arc::clone(&self.is_replicated) })
    }

    /// Runs jobs until the session's connection is lost or the provider ends.
    async fn serve(&self, session: Session, first: Job, queue: &mut UnboundedReceiver<Job>) {
        let start = |job: Job| {
            if let Some(work) = job(Ok(session.clone())) {
                tokio::spawn(work);
            }
        };
        start(first);
        loop {
            tokio::select! {
                biased;
                () = session.broken.notified() => return,
                () = self.stop.notified() => return,
                job = queue.recv() => match job {
                    Some(_) if session.client.connection_state() != State::Connected => return,
                    Some(job) => start(job),
                    None => return,
                },
            }
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
        }
    }
}

/// Ends a runtime without a wait for its threads, which look up names.
fn end(runtime: Tokio) {
    runtime.shutdown_background();
}
