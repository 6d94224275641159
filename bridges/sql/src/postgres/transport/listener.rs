//! Receives the notifications of other instances by `LISTEN`. They are hints: events whose notification is lost are found by polling.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::provider::BackendError;
use postgres::Error;
use postgres::fallible_iterator::FallibleIterator;

use super::address::Address;
use super::bounded::discard;
use super::connection::{CHECK_LIMIT, Session};
use super::error::backend_error;
use super::notifier::Waiters;
use super::thread::Thread;

/// How soon the listener sees a stop without a notification. Each wait wakes the machine twice.
const WAIT: Duration = Duration::from_millis(500);
/// The time between two attempts to connect.
const RECONNECT_AFTER: Duration = Duration::from_secs(1);
/// The time between two checks of the connection, which may have been cut silently.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// A handle on the thread. The thread ends when the handle is dropped.
pub(crate) struct Listener {
    stop: Arc<AtomicBool>,
    _thread: Option<Thread>,
}

struct Receiving {
    address: Arc<Address>,
    channel: String,
    table: String,
    waiters: Arc<Waiters>,
    stop: Arc<AtomicBool>,
}

impl Listener {
    pub(crate) fn start(address: &Arc<Address>, channel: &str, table: &str, waiters: &Arc<Waiters>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let receiving = Receiving {
            address: Arc::clone(address),
            channel: channel.to_owned(),
            table: table.to_owned(),
            waiters: Arc::clone(waiters),
            stop: Arc::clone(&stop),
        };
        let thread = Thread::start("listen", move || receiving.run());
        let thread = thread.inspect_err(|error| {
            tracing::warn!(%error, "the thread for notifications could not be started: events of others are found by polling");
        });
        Self { stop, _thread: thread.ok() }
    }

    /// Asks the thread to end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Receiving {
    fn run(&self) {
        while !self.stop.load(Ordering::SeqCst) {
            if let Err(error) = self.listen() {
                tracing::debug!(%error, "the connection for notifications was lost");
                let until = Instant::now() + RECONNECT_AFTER;
                while Instant::now() < until && !self.stop.load(Ordering::SeqCst) {
                    thread::sleep(WAIT.min(until.saturating_duration_since(Instant::now())));
                }
            }
        }
    }

    fn listen(&self) -> Result<(), BackendError> {
        let mut session = Session::open(&self.address)?;
        let received = self.receive(&mut session);
        discard(session);
        received.map_err(|error| backend_error(&error))
    }

    fn receive(&self, session: &mut Session) -> Result<(), Error> {
        let Session { client, departures, .. } = session;
        client.batch_execute(&format!("LISTEN \"{}\"", self.channel.replace('"', "\"\"")))?;
        // Events may have been stored before the connection listened.
        self.waiters.stored();
        let mut next_check = Instant::now() + CHECK_EVERY;
        // Nobody sends notifications on a server that was left.
        while !self.stop.load(Ordering::SeqCst) && self.address.departures() == *departures {
            while let Some(notification) = client.notifications().timeout_iter(WAIT).next()? {
                if let Some(rest) = notification.payload().strip_prefix(&self.table) {
                    match rest {
                        "" => self.waiters.stored(),
                        " joined" => self.waiters.has_others.store(true, Ordering::Relaxed),
                        _ => {}
                    }
                }
                if self.stop.load(Ordering::SeqCst) {
                    return Ok(());
                }
            }
            if Instant::now() >= next_check {
                client.is_valid(CHECK_LIMIT)?;
                next_check = Instant::now() + CHECK_EVERY;
            }
        }
        Ok(())
    }
}
