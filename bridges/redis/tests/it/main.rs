//! The Redis bridge against servers that the tests start. `tests/alone` holds the tests that measure the whole process.

mod backlog;
mod conformance;
mod deferred;
mod deferred_trouble;
mod disk;
mod earlier_version;
mod example;
mod faults;
mod format;
mod frozen;
mod large;
mod left_over;
mod link;
mod loss;
mod partitioning;
mod partitions;
mod replicas;
mod restart;
mod retries;
mod rooms;
mod slow_link;
mod statuses;
mod support;
#[cfg(feature = "tls")]
mod tls;
mod trouble;
