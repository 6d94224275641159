//! Events out: through the broker, and in a transaction of the program.

mod last_confirmed;
mod mirror;
mod transaction;

pub(crate) use last_confirmed::LastConfirmed;
pub(crate) use mirror::Mirror;
pub use transaction::{Outbox, publish_in};
