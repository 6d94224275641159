//! The NATS bridge against real servers. Tests that measure or change their whole process are in `tests/alone`.

mod cluster;
mod conformance;
mod credentials;
mod disk;
mod example;
mod faults;
mod floor;
mod forgotten;
mod frozen;
mod large;
mod last_verdict;
mod link;
mod owners;
mod partitioning;
mod partitions;
mod patterns;
mod piled_up;
mod reading;
mod restart;
mod rooms;
mod statuses;
mod support;
#[cfg(feature = "tls")]
mod tls;
mod trouble;
