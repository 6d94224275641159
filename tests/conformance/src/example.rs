//! The example of a back end, run as its readers run it.

use std::collections::BTreeSet;
use std::env;
use std::path::PathBuf;
use std::process::Command;

/// An example of the package that is tested, which is built beside the tests.
fn built(name: &str) -> PathBuf {
    let test = env::current_exe().expect("a path");
    let example = test.parent().and_then(|deps| deps.parent()).expect("a folder").join("examples").join(name);
    assert!(example.exists(), "{} is not built: the tests of the whole package do that", example.display());
    example
}

/// Runs an example whose processes share the events of the back end at an address. Returns how many of them had a share.
///
/// # Panics
/// If it fails, or does not handle each of its events once.
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
