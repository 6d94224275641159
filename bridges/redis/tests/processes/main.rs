//! Processes that share a Redis stream and die (the cases of every provider), and a server that dies.

#[path = "support/streams.rs"]
mod streams;

use eventbroker_conformance::processes::run;

fn main() {
    run(&streams::Streams::new(0, 0), &[]);
}
