//! Partitions: which member owns which, the hand-over of a partition, and a new number of partitions.

mod assignment;
mod claims;
mod handover;
mod repartition;
mod selection;

pub(crate) use claims::{Claims, Hooks};
pub(crate) use handover::{Effect, Event, Handover};
pub(crate) use repartition::{recorded_partitions, repartition};
pub(crate) use selection::Selection;
