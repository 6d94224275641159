//! CRUD hooks: the registry, transactions, and the events that operations become.

mod events;
mod refusals;
mod registry;
mod transaction;
