//! Notifications that something was stored: to the waiting threads of this process, and by `NOTIFY` to other instances.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use postgres::Error;

use super::address::Address;
use super::connection::Session;
use super::link::Link;
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
    fn add(&self) -> Arc<Notify> {
        let notify = Arc::<Notify>::default();
        let mut waiters = self.waiters.lock();
        waiters.retain(|waiter| waiter.strong_count() > 0);
        waiters.push(Arc::downgrade(&notify));
        notify
    }

    pub(crate) fn stored(&self) {
        self.waiters.lock().iter().filter_map(Weak::upgrade).for_each(|waiter| waiter.stored());
    }
}

/// Sends notifications, and receives those of others once `listen` was called.
#[derive(Debug)]
pub(crate) struct Notifier {
    waiters: Arc<Waiters>,
    address: Arc<Address>,
    channel: String,
    table: String,
    listener: OnceLock<Listener>,
    /// A notification waits to be sent.
    is_pending: Arc<AtomicBool>,
    link: Arc<Link>,
}

/// One notification.
pub(crate) struct Notice {
    channel: String,
    payload: String,
}

impl Notice {
    pub(crate) fn send(&self, session: &mut Session) -> Result<(), Error> {
        session.execute("SELECT pg_notify($1, $2)", &[&self.channel, &self.payload]).map(drop)
    }
}

impl Notifier {
    /// Sends through `link` on `channel`, for the tables of `table`.
    pub(crate) fn new(address: &Arc<Address>, link: &Arc<Link>, channel: &str, table: &str) -> Self {
        Self {
            waiters: Arc::default(),
            address: Arc::clone(address),
            channel: channel.to_owned(),
            table: table.to_owned(),
            listener: OnceLock::new(),
            is_pending: Arc::default(),
            link: Arc::clone(link),
        }
    }

    /// A `Notify` for one waiting thread.
    pub(crate) fn add_waiter(&self) -> Arc<Notify> {
        self.waiters.add()
    }

    /// Receives the notifications of others from now on.
    pub(crate) fn listen(&self) {
        self.listener.get_or_init(|| Listener::start(&self.address, &self.channel, &self.table, &self.waiters));
    }

    /// Whether other instances are there that wait for notifications.
    pub(crate) fn set_others(&self, has_others: bool) {
        self.waiters.has_others.store(has_others, Ordering::Relaxed);
    }

    /// The notification that this instance has joined, so that the others send notifications from now on.
    pub(crate) fn joined(&self) -> Notice {
        self.notice(" joined")
    }

    fn notice(&self, suffix: &str) -> Notice {
        Notice { channel: self.channel.clone(), payload: format!("{}{suffix}", self.table) }
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
        let (is_pending, notice) = (Arc::clone(&self.is_pending), self.notice(""));
        self.link.hint(move |session| {
            is_pending.store(false, Ordering::SeqCst);
            session.map_or(Ok(()), |session| notice.send(session))
        });
    }
}

impl Drop for Notifier {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.get() {
            listener.stop();
            // The listener sees the stop sooner if it receives a notification.
            let notice = self.notice(" left");
            self.link.hint(move |session| session.map_or(Ok(()), |session| notice.send(session)));
        }
    }
}
