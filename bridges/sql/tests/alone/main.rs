//! Tests that measure the processor time of their whole process.
#![cfg(feature = "postgres")]

use std::sync::{Mutex, MutexGuard, PoisonError};

mod postgres_away;

/// Locks the process for one test.
fn process() -> MutexGuard<'static, ()> {
    static PROCESS: Mutex<()> = Mutex::new(());
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}
