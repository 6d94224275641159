//! The cases of every provider with processes that die and a server that crashes or freezes. They run on a stream and
//! at the same time on one with six partitions, which keeps the order of each key while members join and leave.

mod streams;

use std::thread;

use eventbroker_conformance::processes::{is_member, run};
use streams::Streams;

/// Members open a stream of either kind by its address.
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
