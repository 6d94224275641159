//! Partitions: their assignment to members, the partitions that this provider owns, and their number.

mod ownership;
mod repartition;

pub(crate) use ownership::{Ownership, Sharing};
pub(crate) use repartition::{check_partitions, divide, stored_partitions};
