//! consume

pub(crate) mod barrier;
pub(crate) mod floors;
pub(crate) mod notify;
pub(crate) mod pull_buffer;
pub(crate) mod pull_loop;
pub(crate) mod pull_state;
pub(crate) mod recovery;
