//! The assembly: opens a provider from the settings, and repartitions a stream.

pub(crate) mod backend;
pub(crate) mod ingest;
pub(crate) mod settler;

use std::sync::Arc;

use eventbroker::provider::{Capabilities, Provider};

use crate::jetstream::stream;
use crate::partitions::repartition as division;
use crate::provider::backend::Database;
use crate::publish::mirror;
use crate::query::{operator, store};
use crate::settings::{Nats, OpenError};

impl Nats {
    /// Connects, creates missing streams, and returns a provider for one broker. Waits at most 10 s for a server that does not answer.
    ///
    /// # Errors
    /// [`OpenError`]: a setting is wrong, the server is unreachable, older than 2.11, or refuses, or the stream has other settings.
    pub fn open(&self) -> Result<Provider, OpenError> {
        self.check()?;
        let settings = if self.adopt_partitions { self.with_known_partitions()? } else { self.clone() };
        let database = Arc::new(Database::new(&settings)?);
        let on_thread = Arc::clone(&database);
        let made = database.runtime.call_long(move |session| async move { stream::make(&session, &on_thread).await });
        made?.map_err(OpenError::Setting)?;
        let capabilities = Capabilities::none().with_durability().with_instances().with_groups().with_broadcast();
        let capabilities = capabilities.with_start_positions().with_durable_broadcast().with_replay().with_tail();
        let capabilities = match settings.partitions {
            0 => capabilities.with_order_per_subscription(),
            _ => capabilities.with_order_per_key(),
        };
        Ok(Provider::new("nats", capabilities)
            .with_store(Arc::new(store::NatsStore::new(&database)))
            .with_operator(Arc::new(operator::NatsOperator::new(&database)))
            .with_mirror(Box::new(mirror::NatsMirror::new(&database)))
            .with_ingest(Box::new(ingest::NatsIngest::new(&database)), Box::new(settler::NatsSettler::new(&database))))
    }

    /// Divides the stream into [`partitions`](Self::partitions), whatever the number was before. All instances must have stopped, and
    /// nothing may wait. Handled events and dead letters stay. Blocks while consumers are created, at most 30 s.
    ///
    /// # Errors
    /// [`OpenError`]: a setting is wrong, an instance uses the stream, a delivery waits in it, or the server is unreachable or refuses.
    pub fn repartition(&self) -> Result<(), OpenError> {
        self.check()?;
        let from = Arc::new(Database::new(&self.with_known_partitions()?)?);
        let to = Arc::new(Database::new(self)?);
        let divided = from.runtime.call_long({
            let from = Arc::clone(&from);
            move |session| async move { division::divide(&session, &from, &to).await }
        });
        divided?.map_err(OpenError::Setting)
    }

    /// These settings with the recorded number of partitions, if there is one.
    fn with_known_partitions(&self) -> Result<Self, OpenError> {
        let database = Arc::new(Database::new(self)?);
        let on_thread = Arc::clone(&database);
        let known = database.runtime.call(move |session| async move { division::known(&session, &on_thread).await })?;
        Ok(self.clone().partitions(known.unwrap_or(self.partitions)))
    }
}
