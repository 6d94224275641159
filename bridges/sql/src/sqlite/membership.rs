//! Instances and their names.

pub(crate) mod process;
