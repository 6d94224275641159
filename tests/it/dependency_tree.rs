//! The core depends on no async runtime and no network stack. It runs `cargo tree`.

use std::process::Command;

/// Crates of async runtimes, of their ecosystems, and of network protocols.
const FORBIDDEN: &[&str] = &[
    "tokio",
    "async-std",
    "smol",
    "async-executor",
    "async-io",
    "async-trait",
    "futures",
    "futures-core",
    "futures-util",
    "mio",
    "polling",
    "socket2",
    "hyper",
    "reqwest",
    "ureq",
    "redis",
    "async-nats",
    "nats",
    "postgres",
    "tokio-postgres",
    "rusqlite",
    "rustls",
    "native-tls",
    "openssl",
];

fn normal_dependencies(features: &[&str]) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--package",
            "eventbroker",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{lib}",
            "--offline",
        ])
        .args(features)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo tree runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo prints text");
    text.lines().map(|line| line.trim().replace('_', "-")).filter(|line| !line.is_empty()).collect()
}

#[test]
fn the_core_depends_on_no_async_and_no_network_crate() {
    let dependencies = normal_dependencies(&["--all-features"]);
    // Crates that the core does depend on, to be sure that the list was parsed.
    for expected in ["eventbroker", "serde-json", "crossbeam-queue"] {
        assert!(dependencies.iter().any(|it| it == expected), "{expected} is not in {dependencies:?}");
    }
    let found: Vec<_> = dependencies.iter().filter(|it| FORBIDDEN.contains(&it.as_str())).collect();
    assert!(found.is_empty(), "the core depends on {found:?}");
}
