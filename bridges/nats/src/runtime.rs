//! The bridge thread: the only place that names tokio. It holds one connection at a time, in a runtime of its own. When the connection is
//! lost, or a question is not answered in time, the runtime ends with everything that was under way on it: nothing that was asked before is
//! sent later, on another connection, behind what was asked after it. The next question connects again.

use std::fmt;
use std::future::Future;
use std::io::{self, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use async_nats::Client;
use async_nats::connection::State;
use eventbroker::provider::{BackendError, Backoff};
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime as Tokio};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::client;
use crate::router::Router;
use crate::socket::Address;
use crate::tap::Tap;

/// How long a call may take, and one that has much to look at.
const CALL_LIMIT: Duration = Duration::from_secs(2);
const LONG_LIMIT: Duration = Duration::from_secs(30);

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;
type Job = Box<dyn FnOnce(Result<Session, BackendError>) -> Option<Work> + Send>;

/// A connection, as long as it lasts.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) tap: Arc<Tap>,
    pub(crate) router: Arc<Router>,
    /// Tells this connection from earlier ones.
    pub(crate) generation: u64,
    broken: Arc<Notify>,
    /// Whether several servers keep the streams.
    pub(crate) is_replicated: Arc<AtomicBool>,
}

/// The thread, and the way to it.
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
    /// Nobody needs the thread any more.
    stop: Notify,
    stopping: AtomicBool,
    /// Called when a connection is lost.
    on_loss: Mutex<Option<Box<dyn Fn() + Send>>>,
}

impl Runtime {
    pub(crate) fn start(address: Arc<Address>, backoff: Arc<Backoff>) -> io::Result<Self> {
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

    /// What is called when a connection is lost.
    pub(crate) fn on_loss(&self, call: impl Fn() + Send + 'static) {
        *self.shared.on_loss.lock() = Some(Box::new(call));
    }

    /// The connection that is, or will be next.
    pub(crate) fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::SeqCst)
    }

    /// Asks the server something and waits for the answer.
    pub(crate) fn call<T, F, A>(&self, work: F) -> Result<T, BackendError>
    where
        T: Send + 'static,
        F: FnOnce(Session) -> A + Send + 'static,
        A: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        self.begin(work).wait()
    }

    /// The same for what operators ask, which may be much.
    pub(crate) fn call_long<T, F, A>(&self, work: F) -> Result<T, BackendError>
    where
        T: Send + 'static,
        F: FnOnce(Session) -> A + Send + 'static,
        A: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        self.begin_within(LONG_LIMIT, work).wait()
    }

    /// The same for what only reads: it is asked once more if the connection was lost meanwhile, which says nothing about the server.
    pub(crate) fn read<T, F, A>(&self, work: F) -> Result<T, BackendError>
    where
        T: Send + 'static,
        F: FnOnce(Session) -> A + Clone + Send + 'static,
        A: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        match self.begin_within(LONG_LIMIT, work.clone()).heard() {
            Err(RecvTimeoutError::Disconnected) => self.call_long(work),
            heard => heard.unwrap_or_else(|_| Err(self.lost("no answer"))),
        }
    }

    /// The same for who has something to do before he waits.
    pub(crate) fn begin<T, F, A>(&self, work: F) -> Call<'_, T>
    where
        T: Send + 'static,
        F: FnOnce(Session) -> A + Send + 'static,
        A: Future<Output = Result<T, BackendError>> + Send + 'static,
    {
        self.begin_within(CALL_LIMIT, work)
    }

    fn begin_within<T, F, A>(&self, limit: Duration, work: F) -> Call<'_, T>
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
                tell(&sender, Err(error));
                None
            }
        });
        Call { runtime: self, answer, limit }
    }

    /// Has something done on the connection, and waits for nothing.
    pub(crate) fn post(&self, job: impl FnOnce(Result<Session, BackendError>) -> Option<Work> + Send + 'static) {
        if let Some(jobs) = &self.jobs {
            // Only a thread that has panicked does not take it; then the job is dropped, which tells whoever waits for it.
            let _ = jobs.send(Box::new(job));
        }
    }

    fn lost(&self, what: &str) -> BackendError {
        BackendError::Unavailable(format!("{}: {what}", self.shared.address.place))
    }
}

/// A question that was asked.
pub(crate) struct Call<'a, T> {
    runtime: &'a Runtime,
    answer: Receiver<Result<T, BackendError>>,
    limit: Duration,
}

impl<T> Call<'_, T> {
    pub(crate) fn wait(self) -> Result<T, BackendError> {
        let runtime = self.runtime;
        match self.heard() {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Disconnected) => Err(runtime.lost("the connection was lost")),
            Err(RecvTimeoutError::Timeout) => Err(runtime.lost("no answer")),
        }
    }

    fn heard(self) -> Result<Result<T, BackendError>, RecvTimeoutError> {
        self.answer.recv_timeout(Backoff::CONNECT_LIMIT + self.limit + Duration::from_secs(1))
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.stop.notify_one();
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take() {
            // What ends on the thread itself can't wait for it.
            if thread.thread().id() != thread::current().id() {
                // It ends, one way or the other.
                let _ = thread.join();
            }
        }
    }
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("place", &self.shared.address.place).finish_non_exhaustive()
    }
}

/// Whoever has asked may have given up.
fn tell<T>(sender: &SyncSender<Result<T, BackendError>>, answer: Result<T, BackendError>) {
    let _ = sender.try_send(answer);
}

/// Does the work within the time that a call may take. One that takes longer ends the connection, because a late answer, or what is still
/// to be sent, would come in between later ones.
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
        Ok(answer) => tell(&sender, answer),
        Err(_) => {
            tell(&sender, Err(BackendError::Unavailable(format!("{place}: no answer within {limit:?}"))));
            session.give_up("a call was not answered");
        }
    }
}

impl Session {
    /// Goes on with something beside the calls, as long as the connection lasts.
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(work);
    }

    /// Ends the connection: what is known of it can't be true.
    pub(crate) fn give_up(&self, why: &str) {
        tracing::debug!(why, "a connection to NATS is given up");
        self.broken.notify_one();
    }

    /// The end of something that one call may take; nothing if it takes longer.
    pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(CALL_LIMIT, work).await.ok()
    }

    /// Lets others go on first.
    pub(crate) async fn give_way() {
        tokio::task::yield_now().await;
    }

    /// Waits a moment.
    pub(crate) async fn pause(time: Duration) {
        tokio::time::sleep(time).await;
    }

    /// What comes of the work, if it comes in time.
    pub(crate) async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(time, work).await.ok()
    }
}

/// A socket that the runtime watches; reading and writing do not block.
pub(crate) struct Socket(TcpStream);

impl Socket {
    pub(crate) fn new(stream: std::net::TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        TcpStream::from_std(stream).map(Self)
    }

    /// Waits until there is something to read, or room to write if that is wanted.
    pub(crate) async fn ready(&self, is_room_wanted: bool) -> io::Result<()> {
        let interest = if is_room_wanted { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.0.ready(interest).await.map(drop)
    }
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for &Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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
        let broken = Arc::new(Notify::new());
        let (lost, was_connected) = (Arc::clone(&broken), Arc::new(AtomicBool::new(false)));
        let connected = Arc::clone(&was_connected);
        let is_first = move || !connected.load(Ordering::SeqCst);
        let options = client::options(&self.address, is_first, move || lost.notify_one())?;
        let connecting = options.connect(self.address.servers.clone());
        let client = tokio::select! {
            biased;
            connected = connecting => connected.map_err(|error| format!("{}: {}", self.address.place, client::reason(&error)))?,
            () = self.stop.notified() => return Err(format!("{}: the broker ends", self.address.place)),
        };
        was_connected.store(true, Ordering::SeqCst);
        let generation = self.generation.load(Ordering::SeqCst);
        let tap = self.connect_tap(client.server_info().server_id, &broken).await?;
        let router = Router::start(&client).await.map_err(|error| format!("{}: {error}", self.address.place))?;
        Ok(Session { client, tap, router, generation, broken, is_replicated: Arc::clone(&self.is_replicated) })
    }

    /// Makes the other connection, to the same server if that is among those that are asked.
    async fn connect_tap(self: &Arc<Self>, server_id: String, broken: &Arc<Notify>) -> Result<Arc<Tap>, String> {
        let (shared, lost) = (Arc::clone(self), Arc::clone(broken));
        let connecting = tokio::task::spawn_blocking(move || shared.address.connect(Some(&server_id)));
        let connected = tokio::select! {
            biased;
            connected = connecting => connected.map_err(|_| format!("{}: nobody connects", self.address.place))?,
            () = self.stop.notified() => return Err(format!("{}: the broker ends", self.address.place)),
        };
        let tap = Tap::start(connected?, move |why| {
            tracing::debug!(why, "a connection to NATS was lost");
            lost.notify_one();
        });
        tap.map_err(|error| format!("{}: {error}", self.address.place))
    }

    /// Does what it is asked for until the connection is lost or nobody asks any more.
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

/// Looking up a name is done on threads of the runtime, which nobody has to wait for.
fn end(runtime: Tokio) {
    runtime.shutdown_background();
}
