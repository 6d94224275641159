//! The pauses between calls of a back end that fails: exponential, with jitter.

use std::time::Duration;

use crate::bridge::Bridge;
use crate::engine::Engine;

/// The first pause.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The pauses of one bridge thread.
#[derive(Debug)]
pub(super) struct Pauses {
    next: Duration,
}

impl Pauses {
    pub(super) fn new() -> Self {
        Self { next: FIRST_PAUSE }
    }

    /// Pauses. The closing of the bridge cuts it short.
    pub(super) fn pause(&mut self, engine: &Engine, bridge: &Bridge) {
        bridge.closing.wait(self.next.mul_f64(0.5 + engine.random() / 2.0));
        self.next = (self.next * 2).min(LONGEST_PAUSE);
    }
}
