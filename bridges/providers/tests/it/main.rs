//! From a configuration to a provider: files, variables, the bounds of the keys, and each back end's settings.

mod bounds;
mod embedded;
mod environment;
mod errors;
mod expansion;
#[cfg(feature = "nats")]
mod nats;
mod open;
mod original_file;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "redis")]
mod redis;
mod secrets;
#[cfg(feature = "sqlite")]
mod sqlite;
mod template_and_schema;
mod traps;
