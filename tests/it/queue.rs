//! Queues: order, the overflow policies, and the bound on open events.

mod key_order;
mod max_in_flight;
mod ordered_subscription;
mod overflow_block;
mod overflow_block_several;
mod overflow_counts;
mod overflow_drop_newest;
mod overflow_drop_oldest;
mod unkeyed_events;
