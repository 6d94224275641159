//! Settling: acknowledgements, and beside them the statuses, dead letters and records of leases, which an acknowledgement cannot carry. The
//! thread's loop that settles is `provider/settler.rs`, because it needs all parts.
//!
//! Without partitions JetStream accepts a late acknowledgement from any member. A lost lease is noticed where
//! - its token is not held: [`sort_verdicts`], and `NatsSettler::mark` before a marked call;
//! - the partition has another owner: `Claims::renew_and_take_lost`. Its messages are held no more, so `sort_verdicts` finds them lost;
//! - the name of the instance has another owner: `NatsSettler::extend`;
//! - the process has slept: `PullBuffer::note_alive`, which `NatsSettler::extend` calls, and `PullBuffer::put` for messages that arrive;
//! - a message has waited too long before its hand-out: `HandOut::without_stale`.

mod outcome;
mod pending_acks;
mod status_record;
mod verdicts;

pub(crate) use outcome::{Ended, OutcomeRecorder};
pub(crate) use pending_acks::PendingAcks;
pub(crate) use status_record::{StatusRecord, change_status};
pub(crate) use verdicts::{Verdicts, sort_verdicts};
