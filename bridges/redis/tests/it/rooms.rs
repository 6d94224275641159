//! The rooms of the bridge stand in order, and none uses a room above it.

use std::path::Path;

use eventbroker_conformance::rooms;

/// Lowest first.
const ROOMS: [&str; 13] = [
    "settings",
    "transport",
    "scripts",
    "subscriptions",
    "membership",
    "partitions",
    "publish",
    "settle",
    "housekeeping",
    "consume",
    "query",
    "provider",
    "lib",
];

#[test]
fn no_room_uses_a_room_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let violations = rooms::violations(&src, &ROOMS.map(str::to_owned));
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}
