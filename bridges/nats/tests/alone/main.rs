//! Tests that measure their whole process (processor time, memory, threads, traces). They run one at a time.

use std::sync::{Mutex, MutexGuard, PoisonError};

mod access;
mod away;
mod hosts;
mod local;

/// Locks the process for one test.
fn process() -> MutexGuard<'static, ()> {
    static PROCESS: Mutex<()> = Mutex::new(());
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}
