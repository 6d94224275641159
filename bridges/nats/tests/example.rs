//! The example does what it says: two processes share the events of a stream, and each event is handled by one of them.

use std::collections::BTreeSet;
use std::env;
use std::process::Command;

use eventbroker_conformance::nats::Server;

#[test]
fn the_example_handles_each_of_its_events_once() {
    let server = Server::start();
    let test = env::current_exe().expect("a path");
    // The tests of the package build it, beside themselves.
    let example = test.parent().and_then(|deps| deps.parent()).expect("a folder").join("examples").join("nats");
    let output = Command::new(example).arg(server.url()).output().expect("it runs");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && problem.is_empty(), "{problem}");
    let said = String::from_utf8_lossy(&output.stdout);
    let number_after = |line: &str, word: &str| line.split_once(word)?.1.split(' ').next()?.parse::<usize>().ok();
    let mut handled: Vec<usize> = said.lines().filter_map(|line| number_after(line, ": order ")).collect();
    handled.sort_unstable();
    assert_eq!(handled, (1..=40).collect::<Vec<_>>(), "{said}");
    let processes: BTreeSet<&str> = said.lines().filter_map(|line| line.split(": order ").next()).collect();
    assert!(processes.len() >= 2, "both had a share: {said}");
}
