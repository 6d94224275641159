//! Notifications that something was stored: to the waiting threads of this process, and by `NOTIFY` to other instances.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use postgres::Error;

use super::address::Address;
use super::connection::Session;
use super::links::Links;
use super::listener::Listener;
use crate::notify::Notify;

/// The threads of this process that wait for events.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiters: Mutex<Vec<Weak<Notify>>>,
    /// Whether other instances wait too.
    pub(crate) has_others: AtomicBool,
}

impl Waiters {
    pub(crate) fn stored(&self) {
        self.waiters.lock().iter().filter_map(Weak::upgrade).for_each(|waiter| waiter.stored());
    }
}

/// Sends notifications, and receives those of others once `listen` was called.
pub(crate) struct Notifier {
    channel: String,
    table: String,
    /// The longest wait without a notification.
    pub(crate) poll_interval: Duration,
    waiters: Arc<Waiters>,
    /// Where to listen. Without it, events of others are found by polling.
    address: Option<Arc<Address>>,
    listener: OnceLock<Listener>,
    /// A notification waits to be sent.
    is_pending: Arc<AtomicBool>,
    links: Links,
}

impl Notifier {
    /// Sends through `links` on `channel`, for the tables of `table`, and listens at `address`.
    pub(crate) fn new(
        address: Option<Arc<Address>>,
        links: Links,
        channel: &str,
        table: &str,
        poll_interval: Duration,
    ) -> Self {
        let (channel, table, waiters) = (channel.to_owned(), table.to_owned(), Arc::default());
        let (listener, is_pending) = (OnceLock::new(), Arc::default());
        Self { channel, table, poll_interval, waiters, address, listener, is_pending, links }
    }

    /// A `Notify` for one waiting thread.
    pub(crate) fn add_waiter(&self) -> Arc<Notify> {
        let notify = Arc::<Notify>::default();
        let mut waiters = self.waiters.waiters.lock();
        waiters.retain(|waiter| waiter.strong_count() > 0);
        waiters.push(Arc::downgrade(&notify));
        notify
    }

    /// Receives the notifications of others from now on.
    pub(crate) fn listen(&self) {
        if let Some(address) = &self.address {
            self.listener.get_or_init(|| Listener::start(address, &self.channel, &self.table, &self.waiters));
        }
    }

    /// Whether other instances are there that wait for notifications.
    pub(crate) fn set_others(&self, has_others: bool) {
        self.waiters.has_others.store(has_others, Ordering::Relaxed);
    }

    /// Sends the notification that this instance has joined, so that the others send notifications from now on.
    pub(crate) fn send_joined(&self) -> impl FnOnce(&mut Session) -> Result<(), Error> + Send + use<> {
        self.send(" joined")
    }

    fn send(&self, suffix: &str) -> impl FnOnce(&mut Session) -> Result<(), Error> + Send + use<> {
        let (channel, payload) = (self.channel.clone(), format!("{}{suffix}", self.table));
        move |session| session.execute("SELECT pg_notify($1, $2)", &[&channel, &payload]).map(drop)
    }

    /// Notifies the threads of this process.
    pub(crate) fn stored_here(&self) {
        self.waiters.stored();
    }

    /// Notifies the threads of this process and other instances, if there are any. One notification stands for all events until it is
    /// sent.
    pub(crate) fn stored(&self) {
        self.stored_here();
        if !self.waiters.has_others.load(Ordering::Relaxed) || self.is_pending.swap(true, Ordering::SeqCst) {
            return;
        }
        let (is_pending, send) = (Arc::clone(&self.is_pending), self.send(""));
        self.links.hint(move |session| {
            is_pending.store(false, Ordering::SeqCst);
            session.map_or(Ok(()), send)
        });
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get() {
            listener.stop();
            // The listener sees the stop sooner if it receives a notification.
            let send = self.send(" left");
            self.links.hint(move |session| session.map_or(Ok(()), send));
        }
    }
}
