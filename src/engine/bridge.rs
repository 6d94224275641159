//! The threads between the engine and a back end: [`mirror_thread`] sends events, [`ingest_thread`] receives
//! deliveries, [`settle_thread`] returns verdicts and registers subscriptions. Their state is in `crate::bridge`.

mod buffered_publish;
mod crash_guard;
mod deferred_retry;
mod ingest_thread;
mod mirror_thread;
mod mirrored_publish;
mod pauses;
mod settle_thread;

use std::sync::Arc;

use super::Engine;
use super::threads::Role;

impl Engine {
    /// Starts the bridge threads. Waits until the subscriptions are registered, for each at most 5 s.
    pub(super) fn start_bridge(self: &Arc<Self>) -> Result<(), (String, String)> {
        let Some(bridge) = &self.bridge else { return Ok(()) };
        if let Some((ingest, settler)) = bridge.take_ingest() {
            let engine = Arc::clone(self);
            self.lifecycle.spawn(Role::Bridge, "settle", move || engine.run_settling(settler))?;
            bridge.wait_for_registrations();
            let engine = Arc::clone(self);
            self.lifecycle.spawn(Role::Bridge, "ingest", move || engine.run_ingest(ingest))?;
        }
        let mirror = bridge.take_mirror();
        if mirror.is_some() || bridge.store.is_some() {
            let engine = Arc::clone(self);
            self.lifecycle.spawn(Role::Bridge, "mirror", move || engine.run_mirror(mirror))?;
        }
        Ok(())
    }
}
