//! PostgreSQL behind PgBouncer with `pool_mode = transaction`: the suite of all providers, and what a pooler must not change.

mod conformance;
mod sessions;
mod silence;

use std::sync::OnceLock;

use eventbroker_conformance::pgbouncer::PgBouncer;

/// The pooler in front of the shared server.
fn pooler() -> &'static PgBouncer {
    static POOLER: OnceLock<PgBouncer> = OnceLock::new();
    POOLER.get_or_init(|| PgBouncer::start(super::server()))
}
