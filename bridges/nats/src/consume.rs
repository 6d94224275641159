//! The way in: pull requests to the consumers, the buffer of pulled messages, and their hand-out as leases.

mod barrier;
mod hand_out;
mod notify;
mod pull_buffer;
mod pull_loop;
mod pull_state;
mod recovery;

pub(crate) use hand_out::{HandOut, REQUEUES};
pub(crate) use pull_buffer::PullBuffer;
pub(crate) use pull_loop::Puller;
