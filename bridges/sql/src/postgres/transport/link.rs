//! A connection with a thread of its own, so that it is never used inside anybody's async runtime, and so that a caller can give up on
//! a server that does not answer. What is asked runs there one after the other.
//!
//! It connects when it is first asked, and again after it was lost, at most as often as the backoff allows. A call that nobody waits
//! for any more does not begin.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::provider::BackendError;
use parking_lot::Mutex;
use postgres::types::ToSql;
use postgres::{Client, Error, Row, Statement};

use crate::postgres::transport::address::Address;
use crate::postgres::transport::error::{self, backend_error, is_lost};

/// How long a caller waits for an answer, the statements' own limit included.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(15);
/// How long the server may work on a statement, and wait for a lock.
pub(crate) const TIMEOUTS: &str = "SET statement_timeout = '10s'; SET lock_timeout = '5s'";
/// A connection that was not used for so long is asked first whether it is still there, and how long it may take to say so.
const IDLE: Duration = Duration::from_secs(2);
const ALIVE_WITHIN: Duration = Duration::from_secs(5);
/// Prepared statements that a connection keeps.
const STATEMENTS: usize = 64;
/// How long the end of a thread is waited for: one whose server does not answer ends when the system gives its connection up.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Whether a commit has reached the server's disk when it returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sync {
    Full,
    Later,
}

type Job = Box<dyn FnOnce(&mut Worker) + Send>;

/// A handle on the thread, which ends with it.
#[derive(Debug)]
pub(crate) struct Link {
    jobs: Option<Sender<Job>>,
    ended: Mutex<Receiver<()>>,
}

/// What the thread has.
struct Worker {
    address: Arc<Address>,
    sync: Sync,
    session: Option<Session>,
}

/// A connection, and the statements that it has prepared.
pub(crate) struct Session {
    pub(crate) client: Client,
    prepared: HashMap<String, Statement>,
    used: Instant,
}

impl Link {
    /// Starts the thread, which connects when it is asked for something.
    pub(crate) fn start(name: &str, address: &Arc<Address>, sync: Sync) -> std::io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let (end, ended) = sync_channel::<()>(0);
        let mut worker = Worker { address: Arc::clone(address), sync, session: None };
        thread::Builder::new().name(format!("eventbroker-pg-{name}")).spawn(move || {
            for job in queue {
                job(&mut worker);
            }
            drop(worker);
            drop(end);
        })?;
        Ok(Self { jobs: Some(jobs), ended: Mutex::new(ended) })
    }

    /// Has the thread do something, and waits for it.
    pub(crate) fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Session) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, BackendError> {
        self.call_within(CALL_LIMIT, work)
    }

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
                // Who has asked may have given up meanwhile.
                let _ = answer.send(worker.run(work));
            }
        }));
        answered.recv_timeout(limit).unwrap_or_else(|_| {
            is_given_up.store(true, Ordering::SeqCst);
            Err(BackendError::Unavailable(format!("PostgreSQL has not answered within {limit:?}")))
        })
    }

    /// Has the thread do something when it has time, with its connection if it has one then; nobody waits for it.
    pub(crate) fn hint(&self, work: impl FnOnce(Option<&mut Session>) -> Result<(), Error> + Send + 'static) {
        self.post(Box::new(move |worker| {
            // A hint that fails is none.
            let _ = match worker.session {
                Some(_) => worker.run(|session| work(Some(session))),
                None => work(None).map_err(|error| backend_error(&error)),
            };
        }));
    }

    fn post(&self, job: Job) {
        if let Some(jobs) = &self.jobs {
            // If the thread has ended by a panic, the caller's wait ends at once.
            let _ = jobs.send(job);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.jobs = None;
        // Nothing is ever sent: the channel closes when the thread ends.
        let _ = self.ended.lock().recv_timeout(END_LIMIT);
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
            none => Ok(none.insert(Session::open(&self.address, self.sync)?)),
        }
    }
}

impl Session {
    /// Connects, unless the last try was too recent.
    pub(crate) fn open(address: &Address, sync: Sync) -> Result<Self, BackendError> {
        let connect = || Self::connect(address, sync).map_err(|error| format!("{address}: {}", error::text(&error)));
        address.backoff.attempt(connect)
    }

    fn connect(address: &Address, sync: Sync) -> Result<Self, Error> {
        let mut client = address.connect()?;
        // The planner may not go by what it knows of tables that fill and empty: everything here is looked up by an index.
        client.batch_execute(TIMEOUTS)?;
        client.batch_execute(
            "SET idle_in_transaction_session_timeout = '15s'; SET client_min_messages = 'warning'; SET enable_seqscan = off; SET enable_hashjoin = off; SET enable_mergejoin = off; SET jit = off; \
             SET timezone = 'UTC'",
        )?;
        match sync {
            Sync::Later => client.batch_execute("SET synchronous_commit = off")?,
            // Whoever has asked for more than this keeps it.
            Sync::Full => client.batch_execute(
                "SELECT set_config('synchronous_commit', 'on', false) \
                 WHERE current_setting('synchronous_commit') IN ('off', 'local', 'remote_write')",
            )?,
        }
        Ok(Self { client, prepared: HashMap::new(), used: Instant::now() })
    }

    /// Whether it can be used. One that has been idle may have been cut without a word, and a call should not fail for that.
    fn is_alive(&mut self) -> bool {
        let is_idle = self.used.elapsed() >= IDLE;
        self.used = Instant::now();
        !self.client.is_closed() && (!is_idle || self.client.is_valid(ALIVE_WITHIN).is_ok())
    }

    fn prepared(&mut self, query: &str) -> Result<Statement, Error> {
        if let Some(statement) = self.prepared.get(query) {
            return Ok(statement.clone());
        }
        if self.prepared.len() >= STATEMENTS {
            self.prepared.clear();
        }
        let statement = self.client.prepare(query)?;
        self.prepared.insert(query.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Runs a statement, which is prepared once.
    pub(crate) fn query(
        &mut self,
        query: &str,
        values: &[&(dyn ToSql + std::marker::Sync)],
    ) -> Result<Vec<Row>, Error> {
        let statement = self.prepared(query)?;
        self.client.query(&statement, values)
    }

    /// The same for one of which only the number of changed rows counts.
    pub(crate) fn execute(&mut self, query: &str, values: &[&(dyn ToSql + std::marker::Sync)]) -> Result<u64, Error> {
        let statement = self.prepared(query)?;
        self.client.execute(&statement, values)
    }

    /// Runs statements in one transaction, whose commit has reached the disk when this returns.
    pub(crate) fn transaction<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        self.client.batch_execute("BEGIN; SET LOCAL synchronous_commit = on")?;
        let result = work(self).and_then(|result| self.client.batch_execute("COMMIT").map(|()| result));
        if result.is_err() && !self.client.is_closed() {
            // The error that led here is the one to tell; if this fails too, the connection is lost.
            let _ = self.client.batch_execute("ROLLBACK");
        }
        result
    }
}
