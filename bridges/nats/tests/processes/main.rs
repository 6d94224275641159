//! Processes that share a JetStream stream and die (the cases of every provider), and a server that dies or stops for a while; on one
//! stream, and at the same time on a stream with six partitions, which keeps the order of each key whichever members come and go.

mod streams;

use std::thread;

use eventbroker_conformance::processes::{is_member, run};
use streams::Streams;

/// A member opens either kind by its address.
fn main() {
    let (one, partitioned) = (Streams::new(0), Streams::new(6));
    if is_member() {
        return run(&one, &[]);
    }
    thread::scope(|scope| {
        scope.spawn(|| run(&partitioned, &[]));
        run(&one, &[]);
    });
}
