//! The assembly: opens a provider from the settings, and repartitions a stream.

mod backend;
mod ingest;
mod settler;

use std::sync::Arc;

use eventbroker::provider::{Capabilities, Provider};
use eventbroker_bridge_kit::identity::new_boot_id;

use crate::jetstream::{KeyValue, Layout, ServerClock, stream};
use crate::partitions::{recorded_partitions, repartition};
use crate::publish::NatsMirror;
use crate::query::{NatsOperator, NatsStore};
use crate::settings::{Nats, OpenError};
use crate::transport;
use backend::Backend;
use ingest::NatsIngest;
use settler::NatsSettler;

impl Nats {
    /// Connects, creates missing streams, and returns a provider for one broker. Waits at most 10 s for a server that does not answer.
    ///
    /// # Errors
    /// [`OpenError`]: a setting is wrong, the server is unreachable, older than 2.11, or refuses, or the stream has other settings.
    pub fn open(&self) -> Result<Provider, OpenError> {
        self.check()?;
        let settings = if self.adopt_partitions { self.with_recorded_partitions()? } else { self.clone() };
        let backend = Arc::new(Backend::new(settings)?);
        let (settings, layout, kv) = (Arc::clone(&backend.settings), Arc::clone(&backend.layout), backend.kv.clone());
        let ensured = backend
            .runtime
            .call_long(move |session| async move { stream::ensure(&session, &settings, &layout, &kv).await });
        ensured?.map_err(OpenError::Setting)?;
        let capabilities = Capabilities::none().with_durability().with_instances().with_groups().with_broadcast();
        let capabilities = capabilities.with_start_positions().with_durable_broadcast().with_replay().with_tail();
        let capabilities = match backend.layout.has_partitions() {
            false => capabilities.with_order_per_subscription(),
            true => capabilities.with_order_per_key(),
        };
        let (locator, publisher) = (Arc::clone(&backend.locator), Arc::clone(&backend.publisher));
        let operator = NatsOperator { locator: locator.clone(), subscriptions: Arc::clone(&backend.subscriptions) };
        Ok(Provider::new("nats", capabilities)
            .with_store(Arc::new(NatsStore { locator, publisher: publisher.clone() }))
            .with_operator(Arc::new(operator))
            .with_mirror(Box::new(NatsMirror(publisher)))
            .with_ingest(Box::new(NatsIngest::new(&backend)), Box::new(NatsSettler::new(&backend))))
    }

    /// Divides the stream into [`partitions`](Self::partitions), whatever the number was before.
    ///
    /// All instances must have stopped, and no delivery may wait. Handled events and dead letters stay. Blocks while consumers are created, at
    /// most 30 s.
    ///
    /// # Errors
    /// [`OpenError`]: a setting is wrong, an instance uses the stream, a delivery waits in it, or the server is unreachable or refuses.
    pub fn repartition(&self) -> Result<(), OpenError> {
        self.check()?;
        let (from, settings, boot) = (Layout::new(&self.with_recorded_partitions()?), self.clone(), new_boot_id());
        let (runtime, _) = transport::open(self, &boot)?;
        let changed = runtime.call_long(move |session| async move {
            let clock = ServerClock::new(&KeyValue::new(&settings), &boot);
            repartition(&session, &settings, &from, &Layout::new(&settings), &clock).await
        });
        changed?.map_err(OpenError::Setting)
    }

    /// These settings with the recorded number of partitions, if there is one.
    fn with_recorded_partitions(&self) -> Result<Self, OpenError> {
        let (layout, kv) = (Layout::new(self), KeyValue::new(self));
        let (runtime, _) = transport::open(self, &new_boot_id())?;
        let recorded = runtime.call(move |session| async move { recorded_partitions(&session, &layout, &kv).await })?;
        Ok(self.clone().partitions(recorded.unwrap_or(self.partitions)))
    }
}
