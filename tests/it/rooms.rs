//! The rooms of the core stand in the order that `ARCHITECTURE.md` lists, and none uses a room above it.

use std::fs;
use std::path::Path;

use eventbroker_conformance::rooms;

#[test]
fn no_room_uses_a_room_above_it() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let map = fs::read_to_string(package.join("ARCHITECTURE.md")).expect("the map");
    let violations = rooms::violations(&package.join("src"), &rooms::listed_below("## Rooms", &map));
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}
