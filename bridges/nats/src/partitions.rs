//! partitions

pub(crate) mod assignment;
pub(crate) mod claims;
pub(crate) mod repartition;
pub(crate) mod selection;
