//! The handler calls on the stack of the current thread, and those that wait for them.

use std::cell::{Cell, RefCell};

thread_local! {
    static CALLS: RefCell<Vec<(u64, u64)>> = const { RefCell::new(Vec::new()) };
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Marks the current thread as one of a broker, until it ends.
pub(crate) fn become_worker() {
    IS_WORKER.set(true);
}

/// Whether the current thread belongs to a broker or runs a handler. Such a thread must not block on a broker.
pub(crate) fn in_handler() -> bool {
    IS_WORKER.get() || with_calls(|calls| !calls.is_empty()).unwrap_or(false)
}

/// The calls on the current thread, and those that wait for them, as (broker, subscription).
pub(crate) fn current_calls() -> Vec<(u64, u64)> {
    with_calls(|calls| calls.clone()).unwrap_or_default()
}

/// `None` if the thread is ending and has dropped the variable: then no call is on its stack.
fn with_calls<R>(then: impl FnOnce(&mut Vec<(u64, u64)>) -> R) -> Option<R> {
    CALLS.try_with(|calls| then(&mut calls.borrow_mut())).ok()
}

/// A call on the current thread, until it is dropped.
#[derive(Debug)]
pub(crate) struct CallScope {
    depth: usize,
}

impl CallScope {
    /// Enters a call. `callers` are the calls that wait for it, on other threads.
    pub(crate) fn enter(broker: u64, subscription: u64, callers: &[(u64, u64)]) -> Self {
        let depth = with_calls(|calls| {
            let depth = calls.len();
            calls.push((broker, subscription));
            calls.extend_from_slice(callers);
            depth
        });
        Self { depth: depth.unwrap_or(0) }
    }
}

impl Drop for CallScope {
    fn drop(&mut self) {
        with_calls(|calls| calls.truncate(self.depth));
    }
}
