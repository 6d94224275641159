//! The capabilities of both databases.

use eventbroker::provider::Capabilities;

/// The capabilities of a provider on either database.
pub(crate) fn capabilities() -> Capabilities {
    Capabilities::none()
        .with_durability()
        .with_instances()
        .with_groups()
        .with_broadcast()
        .with_order_per_key()
        .with_order_per_subscription()
        .with_start_positions()
        .with_durable_broadcast()
        .with_replay()
        .with_tail()
}
