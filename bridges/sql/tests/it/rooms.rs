//! The rooms that both back ends share stand in an order; those of each back end in the order of all bridges. None uses a room above it.

use std::fs;
use std::path::Path;

use eventbroker_conformance::rooms;

#[test]
fn no_shared_room_uses_a_room_above_it() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(package.join("../ARCHITECTURE.md")).expect("the map of the bridges");
    let order = rooms::listed_below("### Shared by both databases", &map);
    let violations = rooms::violations(&package.join("src"), &order);
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
