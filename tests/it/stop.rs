//! Stopping: draining, deadlines, and stops from handlers and thread-local variables.

mod blocked_publishers;
mod drains;
mod inside_handlers;
mod races;
mod thread_local;
