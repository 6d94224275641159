//! The forms of publish: their results, refusals and duplicates.

mod duplicate_ids;
mod forms;
mod inside_handler;
mod mode_sync;
mod not_running;
mod payload_limit;
mod publisher;
mod rejected_leaves_nothing;
mod sync;
mod sync_deadlock;
