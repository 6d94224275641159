//! The same with a stream that is divided: what is published in order is handled in order, whichever members come and go.

#[path = "support/streams.rs"]
mod streams;

use eventbroker_conformance::processes::run;

fn main() {
    run(&streams::Streams::new(6), &[]);
}
