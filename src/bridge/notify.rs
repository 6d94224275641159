//! How threads of the bridge wait: for a notification that stays until it is reset, and for a value that is set once.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// A notification that stays until it is reset.
#[derive(Debug, Default)]
pub(crate) struct Notify {
    notified: Mutex<bool>,
    changed: Condvar,
}

impl Notify {
    pub(crate) fn notify(&self) {
        *self.notified.lock() = true;
        self.changed.notify_all();
    }

    pub(crate) fn reset(&self) {
        *self.notified.lock() = false;
    }

    /// Waits for a notification, at most `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) {
        self.changed.wait_while_for(&mut self.notified.lock(), |notified| !*notified, timeout);
    }
}

/// A value that is set once and can be waited for.
#[derive(Debug)]
pub(crate) struct Latch<T> {
    value: Mutex<Option<T>>,
    changed: Condvar,
}

impl<T: Clone> Latch<T> {
    pub(crate) fn new() -> Self {
        Self { value: Mutex::new(None), changed: Condvar::new() }
    }

    pub(crate) fn set(&self, value: T) {
        *self.value.lock() = Some(value);
        self.changed.notify_all();
    }

    pub(crate) fn is_set(&self) -> bool {
        self.value.lock().is_some()
    }

    /// Waits for the value, at most `timeout`.
    pub(crate) fn wait(&self, timeout: Duration) -> Option<T> {
        let mut value = self.value.lock();
        self.changed.wait_while_for(&mut value, |value| value.is_none(), timeout);
        value.clone()
    }
}
