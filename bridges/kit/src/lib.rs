//! The parts that the bridges of [`eventbroker`] share. A program that uses a broker needs none of them by name.
//!
//! The kit holds what is the same for two or more back ends:
//!
//! - [`mod@settings`]: the declaration of a setting, from which its setter, its check and its key in a configuration file follow.
//! - [`identity`]: the boot id, which tells a provider from all others.
//! - [`id_time`]: the time in the id of an event.
//! - [`assignment`]: which member owns which partition.
//! - `dead_letter` (feature of that name): the stored form of a dead letter.
//! - [`tcp`]: connections to a host by its name.
//! - `tls` (feature of that name): the certificates that verify a server, and the handshake.
//!
//! The pauses between attempts to connect are in the core, as [`Backoff`](eventbroker::provider::Backoff). Two mechanisms have the same name
//! in several bridges and are not here, because they share no code. The wake-up of an ingest is a flag in SQL, a condition over the pull buffer
//! in NATS, and a blocked read in Redis. A scan of events follows rows, sequences or entries of several streams, each with its own pages.
//!
//! The kit never holds leases, claims or the statuses of events, because a pending-entries list, an acknowledgement floor and a row are
//! different things. It never holds a wire protocol, and there is no generic bridge.
//!
//! # Builds without a back end
//! A bridge declares its settings in its own crate. This room of a bridge compiles without the client library of its back end: the
//! features `client` (Redis, NATS), `sqlite` and `postgres` add the rest. So the crate of the configuration knows every key in every
//! build, and only opening a back end needs its feature. Declarations in the kit would have needed a second declaration of the setters,
//! because a crate can't add setters to a type of another crate.

pub mod assignment;
#[cfg(feature = "dead_letter")]
pub mod dead_letter;
pub mod id_time;
pub mod identity;
pub mod settings;
pub mod tcp;
#[cfg(feature = "tls")]
pub mod tls;
