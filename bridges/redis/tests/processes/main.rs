//! Processes that share a Redis stream and die (the cases of every provider), and a server that crashes or freezes. A
//! second run uses six partitions at the same time: these keep the order of each key while members join and leave.

mod streams;

use std::thread;

use eventbroker_conformance::processes::{is_member, run};
use streams::Streams;

/// Either site opens both kinds of stream: the address holds the number of partitions.
fn main() {
    let (one, partitioned) = (Streams::new(0, 0), Streams::new(6, 0));
    if is_member() {
        return run(&one, &[]);
    }
    thread::scope(|scope| {
        scope.spawn(|| run(&partitioned, &[]));
        run(&one, &[]);
    });
}
