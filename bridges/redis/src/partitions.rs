//! Partitions: one owner each, and their number.

pub(crate) mod ownership;
pub(crate) mod repartition;
