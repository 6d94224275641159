//! Help, version, completions, and errors for wrong usage.

use crate::support::run;

#[test]
fn help_opens_with_three_examples() {
    for arguments in [&["--help"][..], &["pipe", "--help"], &["bench", "--help"], &["completions", "--help"]] {
        let out = run(arguments, "");
        let lines: Vec<_> = out.stdout.lines().take(4).collect();
        assert_eq!((out.code, lines[0]), (Some(0), "Examples:"));
        assert!(lines[1..].iter().all(|line| line.contains("eventbroker ")), "{lines:?}");
    }
}

#[test]
fn help_lists_the_exit_codes() {
    let out = run(&["--help"], "");
    for code in ["0 ", "1 ", "2 ", "3 ", "4 ", "5 ", "6 ", "130 ", "143 "] {
        assert!(out.stdout.lines().any(|line| line.trim_start().starts_with(code)), "{code} is missing");
    }
}

#[test]
fn version_is_the_packages() {
    let out = run(&["--version"], "");
    assert_eq!(out.stdout, format!("eventbroker {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completions_know_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let out = run(&["completions", shell], "");
        assert_eq!(out.code, Some(0));
        for word in ["demo", "pipe", "bench", "pattern"] {
            assert!(out.stdout.contains(word), "{shell} does not know {word}");
        }
    }
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_where() {
    let cases: [(&[&str], &str); 5] = [
        (&[], "Usage: eventbroker"),
        (&["pipes"], "pipe"),
        (&["pipe"], "--pattern"),
        (&["pipe", "--pattern", "a..b"], "segment 2 is empty"),
        (&["pipe", "--pattern", "a", "--pattern", "a"], "--pattern a is given twice"),
    ];
    for (arguments, expected) in cases {
        let out = run(arguments, "");
        assert_eq!((out.code, out.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(out.stderr.contains(expected), "{arguments:?}: {}", out.stderr);
    }
}
