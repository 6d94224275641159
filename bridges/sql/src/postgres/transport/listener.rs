//! Hears of what others have stored, by `LISTEN`. A hint only: what it misses is found by looking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::provider::BackendError;
use parking_lot::Mutex;
use postgres::Error;
use postgres::fallible_iterator::FallibleIterator;

use crate::postgres::transport::address::Address;
use crate::postgres::transport::connection::Bells;
use crate::postgres::transport::error::backend_error;
use crate::postgres::transport::link::{Session, Sync};

/// How soon it sees that it should end, if it hears nothing. Each look wakes the machine twice.
const WAIT: Duration = Duration::from_millis(500);
/// Time between two tries.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// A connection may fall silent without a word: so often it is asked whether it is there.
const CHECK_EVERY: Duration = Duration::from_secs(5);
/// How long its end is waited for; one that connects at that moment ends later.
const END_LIMIT: Duration = Duration::from_secs(1);

/// The thread; it ends with this.
#[derive(Debug)]
pub(crate) struct Listener {
    stop: Arc<AtomicBool>,
    ended: Mutex<Receiver<()>>,
}

struct Ears {
    address: Arc<Address>,
    channel: String,
    table: String,
    bells: Arc<Bells>,
    stop: Arc<AtomicBool>,
}

impl Listener {
    pub(crate) fn start(address: &Arc<Address>, channel: &str, table: &str, bells: &Arc<Bells>) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let (end, ended) = sync_channel(0);
        let ears = Ears {
            address: Arc::clone(address),
            channel: channel.to_owned(),
            table: table.to_owned(),
            bells: Arc::clone(bells),
            stop: Arc::clone(&stop),
        };
        if let Err(error) = thread::Builder::new().name("eventbroker-pg-listen".to_owned()).spawn(move || ears.run(end))
        {
            tracing::warn!(%error, "no thread for notifications: events of others are found by looking alone");
        }
        Self { stop, ended: Mutex::new(ended) }
    }

    /// It shall end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
        // Nothing is ever sent: the channel closes when the thread ends.
        let _ = self.ended.lock().recv_timeout(END_LIMIT);
    }
}

impl Ears {
    fn run(self, _end: SyncSender<()>) {
        while !self.stop.load(Ordering::SeqCst) {
            if let Err(error) = self.listen() {
                tracing::debug!(%error, "the connection for notifications was lost");
                let until = Instant::now() + AGAIN_AFTER;
                while Instant::now() < until && !self.stop.load(Ordering::SeqCst) {
                    thread::sleep(WAIT.min(until.saturating_duration_since(Instant::now())));
                }
            }
        }
    }

    fn listen(&self) -> Result<(), BackendError> {
        let session = Session::open(&self.address, Sync::Later)?;
        self.hear(session).map_err(|error| backend_error(&error))
    }

    fn hear(&self, session: Session) -> Result<(), Error> {
        let mut client = session.client;
        client.batch_execute(&format!("LISTEN \"{}\"", self.channel.replace('"', "\"\"")))?;
        // For what came before.
        self.bells.ring();
        let mut next_check = Instant::now() + CHECK_EVERY;
        while !self.stop.load(Ordering::SeqCst) {
            while let Some(heard) = client.notifications().timeout_iter(WAIT).next()? {
                if let Some(rest) = heard.payload().strip_prefix(&self.table) {
                    match rest {
                        "" => self.bells.ring(),
                        " joined" => self.bells.others.store(true, Ordering::Relaxed),
                        _ => {}
                    }
                }
                if self.stop.load(Ordering::SeqCst) {
                    return Ok(());
                }
            }
            if Instant::now() >= next_check {
                client.simple_query("SELECT 1")?;
                next_check = Instant::now() + CHECK_EVERY;
            }
        }
        Ok(())
    }
}
