//! Partitions: which member owns which, the hand-over of a partition, and a new number of partitions.
//!
//! The [hand-over](handover) is a state machine; these functions feed it and carry out its reactions. Each step has a guarantee:
//!
//! | step | function, in the file | guarantee |
//! |---|---|---|
//! | claim | `Claims::try_all` in `claims.rs`, `Owners::rebalance` in `assignment.rs` | a partition has one owner: the record of owners is replaced only if nobody else has changed it |
//! | – | `Selection::update` in `selection.rs`, `HandOut::select` in `consume/hand_out.rs` | a gained partition has a new hand-over |
//! | recover | `Puller::begin_to_read` in `consume/pull_loop.rs`, `Puller::recover` in `consume/recovery.rs` | an unsettled message that is not here comes again, before newer ones |
//! | barrier | `Puller::count` in `consume/handover_barrier.rs` | nothing is handed out until `num_ack_pending` is the number of the messages that were here before the question and still are after the answer |
//! | deliver | `PullState::on` in `consume/pull_state.rs`, `HandOut::step` in `consume/hand_out.rs` | messages are in the order of the stream; a gap in the numbers of deliveries raises the barrier |
//! | – | `Selection::rooms`, `HandOut::without_stale`, `LeaseTimes::is_fresh_claim` | an owner that did not renew its claim for a third of a lease hands out nothing |
//! | release | `PullState::close` in `consume/pull_state.rs`, `Claims::try_all` | the record is released only if no message is held or in the buffer |
//! | lost | `Claims::renew_and_take_lost` in `claims.rs` | no verdict is sent for a message of a partition that another member has taken over |

mod assignment;
mod claims;
mod handover;
mod repartition;
mod selection;

pub(crate) use claims::{Claims, Hooks, Participation};
pub(crate) use handover::{Handover, HandoverEffect, HandoverEvent};
pub(crate) use repartition::{recorded_partitions, repartition};
pub(crate) use selection::Selection;
