//! The seam to back ends, on the memory provider and on a back end inside this process.

mod buffered_publishing;
mod crash_guard;
mod deferred_retries;
mod deliver;
mod instance_names;
mod leases;
mod loopback;
mod memory;
mod publish;
mod registration;
mod status;
mod stop;
