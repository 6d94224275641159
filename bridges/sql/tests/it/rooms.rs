//! The rooms that both back ends share stand in an order; those of each back end in the order of all bridges. None uses a room above it.

use std::path::Path;

use eventbroker_conformance::rooms;

/// The rooms that both back ends share, lowest first, and the back ends.
const SHARED: &[&str] = &[
    "value",
    "names",
    "notify",
    "backlog",
    "columns",
    "pattern",
    "select",
    "statements",
    "schema",
    "settings",
    "leases",
    "subscriptions",
    "member",
    "record",
    "housekeeping",
    "provider",
    "sqlite",
    "postgres",
    "lib",
];

fn order(rooms: &[&str]) -> Vec<String> {
    rooms.iter().map(ToString::to_string).collect()
}

#[test]
fn no_shared_room_uses_a_room_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let violations = rooms::violations(&src, &order(SHARED));
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}

#[test]
fn no_room_of_a_back_end_uses_a_room_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for back_end in ["sqlite", "postgres"] {
        let violations =
            rooms::violations_of_module(&src.join(back_end), &[back_end], &rooms::of_a_bridge(&src.join(back_end)));
        assert!(violations.is_empty(), "{}", violations.join("\n"));
    }
}
