//! Calls against the order of the rooms.

/// A call from a room to one above it, which the assembly sets.
pub(crate) type Hook<A, R = ()> = Box<dyn Fn(A) -> R + Send + Sync>;
