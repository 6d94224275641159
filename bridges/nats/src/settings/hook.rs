//! Calls against the order of the rooms.

use std::fmt;

/// A call from a room to one above it, which the assembly sets.
pub(crate) struct Hook<A, R = ()>(Box<dyn Fn(A) -> R + Send + Sync>);

impl<A, R> Hook<A, R> {
    pub(crate) fn new(call: impl Fn(A) -> R + Send + Sync + 'static) -> Self {
        Self(Box::new(call))
    }

    pub(crate) fn call(&self, argument: A) -> R {
        (self.0)(argument)
    }
}

impl<A, R> fmt::Debug for Hook<A, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hook")
    }
}
