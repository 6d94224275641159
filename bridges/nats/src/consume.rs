//! The way in: pull requests to the consumers, the buffer of pulled messages, and their hand-out as leases. The thread's loop that does so is
//! `provider/ingest.rs`, because it needs all parts.

mod hand_out;
mod handover_barrier;
mod notify;
mod pull_buffer;
mod pull_loop;
mod pull_state;
mod recovery;
mod transit_wait;

pub(crate) use hand_out::{HandOut, REQUEUES};
pub(crate) use pull_buffer::PullBuffer;
pub(crate) use pull_loop::Puller;
