//! The pauses between calls of a failing back end: exponential backoff with jitter.

use std::time::Duration;

use crate::bridge::Bridge;
use crate::engine::Engine;

/// The first pause.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The backoff of one bridge thread.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
}

impl Pauses {
    pub(super) fn new() -> Self {
        Self { next: FIRST_PAUSE }
    }

    /// Waits for half to all of the current pause, or until the bridge closes, and doubles the next pause.
    pub(super) fn pause(&mut self, engine: &Engine, bridge: &Bridge) {
        bridge.closing.wait(self.next.mul_f64(0.5 + engine.random() / 2.0));
        self.next = (self.next * 2).min(LONGEST_PAUSE);
    }
}
