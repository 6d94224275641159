//! Events out: through the broker, and in a transaction of the program.

mod mirror;
mod transaction;

pub(crate) use mirror::Mirror;
pub use transaction::{Outbox, publish_in};
