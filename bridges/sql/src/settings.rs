//! Defaults and bounds of the settings that every database has.

use std::time::Duration;

pub(crate) const CONSUMER_GROUP: &str = "resolvespec-workers";
pub(crate) const LEASE_TIME: Duration = Duration::from_secs(30);
pub(crate) const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
pub(crate) const IDLE_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);
pub(crate) const MAX_BACKLOG: u64 = 1_000_000;

const SHORTEST_LEASE: Duration = Duration::from_millis(100);
const SHORTEST_IDLE_EXPIRY: Duration = Duration::from_secs(1);

/// The first setting that is out of its bounds, and these.
pub(crate) fn check(
    consumer_group: &str,
    lease_time: Duration,
    idle_expiry: Duration,
    max_backlog: u64,
) -> Result<(), String> {
    if max_backlog == 0 {
        return Err("max_backlog: is 0, at least 1 is required".to_owned());
    }
    at_least("lease_time", lease_time, SHORTEST_LEASE)?;
    // Who serves a subscription says so each third of a lease.
    at_least("idle_expiry", idle_expiry, lease_time.max(SHORTEST_IDLE_EXPIRY))?;
    let length = consumer_group.len();
    if !(1..=255).contains(&length) {
        return Err(format!("consumer_group: is {length} bytes long, 1 to 255 are allowed"));
    }
    Ok(())
}

pub(crate) fn at_least(name: &str, is: Duration, least: Duration) -> Result<(), String> {
    if is < least { Err(format!("{name}: is {is:?}, at least {least:?} is required")) } else { Ok(()) }
}
