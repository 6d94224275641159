//! The lowest room: clock, hashes and a per-thread counter. Nothing here depends on events.

mod clock;
mod hash;
mod tally;

pub use clock::ManualClock;
pub(crate) use clock::{Clock, nanos, system_time, wall_nanos, wall_nanos_of};
pub(crate) use hash::{NumberHasher, hash_text};
pub(crate) use tally::Tally;
