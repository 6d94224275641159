//! Reads: looks events up and lists them, answers operators, and follows the events as they come.

mod operator;
mod store;
mod tail;

pub(crate) use operator::Operator;
pub(crate) use store::Store;
