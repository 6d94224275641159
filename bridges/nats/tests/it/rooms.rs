//! The rooms of the bridge stand in the order of all bridges, and none uses a room above it.

use std::path::Path;

use eventbroker_conformance::rooms;

#[test]
fn no_room_uses_a_room_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let violations = rooms::violations(&src, &rooms::of_a_bridge(&src));
    assert!(violations.is_empty(), "{}", violations.join("\n"));
}
