//! Partitions: their assignment to members, the partitions that this provider owns, and their number.

mod claims;
mod repartition;

pub(crate) use claims::{Claims, Sharing};
pub(crate) use repartition::{check_partitions, recorded_partitions, repartition};
