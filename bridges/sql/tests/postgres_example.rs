//! The example does what it says: two processes share the events of a database, and each event is handled by one of them.
//!
//! The tests of the whole package build it; for this one alone, `cargo build -p eventbroker-sql --features postgres --example postgres`.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use eventbroker_conformance::postgres::Server;

/// The example, which is built beside the tests.
fn example() -> PathBuf {
    let test = env::current_exe().expect("a path");
    let built = test.parent().and_then(|deps| deps.parent()).expect("a folder").join("examples").join("postgres");
    assert!(built.exists(), "{} is not built: see the top of this test", built.display());
    built
}

#[test]
fn the_example_handles_each_of_its_events_once() {
    let server = Server::start();
    let output = Command::new(example()).arg(server.database()).output().expect("it runs");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && problem.is_empty(), "{problem}");
    let said = String::from_utf8_lossy(&output.stdout);
    let number_after = |line: &str, word: &str| line.split_once(word)?.1.split(' ').next()?.parse::<usize>().ok();
    let mut handled: Vec<usize> = said.lines().filter_map(|line| number_after(line, ": order ")).collect();
    handled.sort_unstable();
    assert_eq!(handled, (1..=40).collect::<Vec<_>>(), "{said}");
}
