//! Runs the example of a back end as a user runs it.

use std::collections::BTreeSet;
use std::env;
use std::path::PathBuf;
use std::process::Command;

/// The path of an example of the tested package, which cargo builds beside the tests.
fn built(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a path");
    let example = test.parent().and_then(|deps| deps.parent()).expect("a folder").join("examples").join(name);
    assert!(example.exists(), "{} is not built: run the tests of the whole package", example.display());
    example
}

/// Runs an example whose processes share the events of the back end at an address. Returns the number of processes that
/// handled some.
///
/// # Panics
/// If the example fails, or does not handle each of its events once.
pub fn handles_each_event_once(name: &str, address: &str) -> usize {
    let output = Command::new(built(name)).arg(address).output().expect("it runs");
    let problem = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && problem.is_empty(), "{problem}");
    let said = String::from_utf8_lossy(&output.stdout);
    let number_after = |line: &str, word: &str| line.split_once(word)?.1.split(' ').next()?.parse::<usize>().ok();
    let mut handled: Vec<usize> = said.lines().filter_map(|line| number_after(line, ": order ")).collect();
    handled.sort_unstable();
    assert_eq!(handled, (1..=40).collect::<Vec<_>>(), "{said}");
    let processes = said.lines().filter_map(|line| line.split_once(": order "));
    processes.map(|(process, _)| process).collect::<BTreeSet<_>>().len()
}
