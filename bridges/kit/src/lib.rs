//! The parts that the bridges of [`eventbroker`] share. A program that uses a broker needs none of them by name.
//!
//! The kit holds what is the same for every back end:
//!
//! - [`mod@settings`]: the declaration of a setting, from which its setter, its check and its key in a configuration file follow.
//! - Later: the identity of an instance, the time in an id, the stored form of a dead letter, the bounds of names, TLS roots, TCP
//!   connections, a notification, a backoff, the assignment of partitions to members, and the driver of scans.
//!
//! The kit never holds leases, claims or statuses, because a pending-entries list, an acknowledgement floor and a row are different
//! things. It never holds a wire protocol, and there is no generic bridge.
//!
//! # Builds without a back end
//! A bridge declares its settings in its own crate. This room of a bridge compiles without the client library of its back end: the
//! features `client` (Redis, NATS), `sqlite` and `postgres` add the rest. So the crate of the configuration knows every key in every
//! build, and only opening a back end needs its feature. Declarations in the kit would have needed a second declaration of the setters,
//! because a crate can't add setters to a type of another crate.

pub mod settings;
