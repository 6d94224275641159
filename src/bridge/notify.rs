//! What the bridge threads wait with: a bell, a value to come, and growing pauses.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::Bridge;
use crate::engine::Engine;

/// Pauses between calls of a back end that fails: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Rings until it is heard.
#[derive(Debug, Default)]
pub(super) struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    pub(super) fn ring(&self) {
        *self.rung.lock() = true;
        self.changed.notify_all();
    }

    pub(super) fn quiet(&self) {
        *self.rung.lock() = false;
    }

    /// Waits until it rings, at most for `timeout`.
    pub(super) fn wait(&self, timeout: Duration) {
        self.changed.wait_while_for(&mut self.rung.lock(), |rung| !*rung, timeout);
    }
}

/// A value that will be there once, to be waited for.
#[derive(Debug)]
pub(super) struct Latch<T> {
    value: Mutex<Option<T>>,
    changed: Condvar,
}

impl<T: Clone> Latch<T> {
    pub(super) fn new() -> Self {
        Self { value: Mutex::new(None), changed: Condvar::new() }
    }

    pub(super) fn set(&self, value: T) {
        *self.value.lock() = Some(value);
        self.changed.notify_all();
    }

    pub(super) fn is_set(&self) -> bool {
        self.value.lock().is_some()
    }

    /// Waits for the value, at most for `timeout`.
    pub(super) fn wait(&self, timeout: Duration) -> Option<T> {
        let mut value = self.value.lock();
        self.changed.wait_while_for(&mut value, |value| value.is_none(), timeout);
        value.clone()
    }
}

/// Growing pauses between calls of a back end that fails, with jitter.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
}

impl Pauses {
    pub(super) fn new() -> Self {
        Self { next: FIRST_PAUSE }
    }

    /// Pauses; cut short when the bridge closes.
    pub(super) fn pause(&mut self, engine: &Engine, bridge: &Bridge) {
        bridge.closing.wait(self.next.mul_f64(0.5 + engine.random() / 2.0));
        self.next = (self.next * 2).min(LONGEST_PAUSE);
    }
}
