//! Tests that measure the whole process (processor time, memory, threads) or record all its traces. One runs at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod access;
mod away;
mod beside;
mod local;
#[path = "../it/support.rs"]
#[allow(dead_code, reason = "tests/it uses the rest")]
mod support;
mod told;

/// Locks the process for one test.
fn process() -> MutexGuard<'static, ()> {
    static PROCESS: Mutex<()> = Mutex::new(());
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}
