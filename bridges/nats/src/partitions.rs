//! Partitions: which member owns which, the hand-over of a partition, and a new number of partitions.
//!
//! The [hand-over](handover) is a state machine. These functions feed it and carry out its reactions, and each has a guarantee:
//!
//! - **Claim**: `Claims::try_all` in `claims.rs` with `Owners::rebalance` in `assignment.rs`. A partition has one owner, since a member replaces the
//!   record of owners only if no other member has changed it meanwhile.
//! - **Gain**: `Selection::update` in `selection.rs`, `HandOut::select` in `consume/hand_out.rs`. A gained partition starts anew:
//!   `PullBuffer::drop_all` drops its state, and `PullState::new` makes another one with a new hand-over.
//! - **Connect**: `PullBuffer::register_reader` in `consume/pull_buffer.rs` feeds `Connected`. Each session recovers before it counts.
//! - **Recover**: `Puller::start_reader` in `consume/pull_loop.rs`, `Puller::recover` in `consume/recovery.rs`. An unsettled message that is not
//!   here is delivered again, before newer ones.
//! - **Barrier**: `Puller::count` in `consume/handover_barrier.rs`. Nothing is handed out until `num_ack_pending` is the number of messages that were
//!   here before the question and still are after the answer.
//! - **Deliver**: `PullState::on` in `consume/pull_state.rs` sorts by sequence, `HandOut::step` in `consume/hand_out.rs` makes leases. A gap in the
//!   numbers of deliveries raises the barrier.
//! - **Renew**: `Claims::poll`, `Selection::rooms`, `HandOut::without_stale`. An owner whose last renewal is older than a third of a lease hands out
//!   nothing.
//! - **Release**: `PullState::close` gives back, then `Claims::try_all` releases the partition in the record. It does so only if no message is held
//!   or in the buffer.
//! - **Loss**: `Claims::renew_and_take_lost`. No verdict is sent for a message of a partition that another member has taken over.

mod assignment;
mod claims;
mod handover;
mod repartition;
mod selection;

pub(crate) use claims::{Claims, Hooks, Participation};
pub(crate) use handover::{Handover, HandoverEffect, HandoverEvent};
pub(crate) use repartition::{recorded_partitions, repartition};
pub(crate) use selection::Selection;
