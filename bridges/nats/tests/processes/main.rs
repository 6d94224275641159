//! Processes that share a JetStream stream and die (the cases of every provider), and a server that dies or stops for a while.

#[path = "support/streams.rs"]
mod streams;

use eventbroker_conformance::processes::run;

fn main() {
    run(&streams::Streams::new(0), &[]);
}
