//! The assembly of a provider from its parts.

use std::sync::Arc;

use eventbroker::provider::{Capabilities, Provider};

use crate::consume::RedisIngest;
use crate::housekeeping::Housekeeping;
use crate::membership::Membership;
use crate::partitions::{Sharing, check_partitions, recorded_partitions, repartition};
use crate::publish::{BacklogLimit, Publishing, RedisMirror};
use crate::query::{RedisOperator, RedisStore};
use crate::scripts::{Client, Layout};
use crate::settings::{OpenError, Redis};
use crate::settle::RedisSettler;
use crate::subscriptions::LocalSubscriptions;
use crate::transport::{Link, Server};

impl Redis {
    /// Connects, and returns a provider for one broker. Waits at most 10 s for a server that does not answer.
    ///
    /// # Errors
    /// [`OpenError`]: a setting is invalid, the server can't be reached or refuses, or it may evict keys.
    pub fn open(&self) -> Result<Provider, OpenError> {
        self.check()?;
        let server = Arc::new(Server::new(self)?);
        let mut link = Link::new(&server);
        if self.adopt_partitions {
            let recorded = recorded_partitions(&mut link, &self.stream_name)?.unwrap_or(self.partitions);
            return self.clone().adopt_partitions(false).partitions(recorded).open();
        }
        link.check_eviction()?;
        check_partitions(&mut link, self)?;
        Ok(assemble(self, &server))
    }

    /// Divides the stream into [`partitions`](Self::partitions) streams, whatever it was before.
    ///
    /// All instances must have stopped, and everything must be handled. Handled events stay if there is a stream for them. Blocks until
    /// the keys are renamed.
    ///
    /// # Errors
    /// [`OpenError`]: a setting is invalid, an instance uses the stream, something waits in it, or the server can't be reached or refuses.
    pub fn repartition(&self) -> Result<(), OpenError> {
        self.check()?;
        let server = Arc::new(Server::new(self)?);
        let recorded = recorded_partitions(&mut Link::new(&server), &self.stream_name)?.unwrap_or(0);
        let from = Arc::new(Layout::new(&self.clone().partitions(recorded)));
        repartition(&mut Client::new(&server, &from), &self.stream_name, &Layout::new(self))
    }
}

fn assemble(settings: &Redis, server: &Arc<Server>) -> Provider {
    let (settings, layout) = (Arc::new(settings.clone()), Arc::new(Layout::new(settings)));
    let client = || Client::new(server, &layout);
    let (local, held) = (Arc::new(LocalSubscriptions::default()), Arc::default());
    let sharing = Sharing { membership: Arc::new(Membership::new(settings.lease_time)), held };
    let backlog = Arc::new(BacklogLimit::new(settings.max_backlog));
    let publishing = Publishing { settings: Arc::clone(&settings), backlog: Arc::clone(&backlog) };
    let operator = RedisOperator::new(settings.clone(), layout.clone(), local.clone(), server.clone());
    let housekeeping = Housekeeping::new(settings.clone(), local.clone(), backlog);
    let ingest = RedisIngest::new(sharing.clone(), local.clone(), housekeeping, client());
    let partitions = settings.partitions;
    let settler = RedisSettler::new(settings, sharing, local, client());
    Provider::new("redis", capabilities(partitions))
        .with_store(Arc::new(RedisStore { publishing: publishing.clone(), client: client().into() }))
        .with_operator(Arc::new(operator))
        .with_mirror(Box::new(RedisMirror::new(publishing, client())))
        .with_ingest(Box::new(ingest), Box::new(settler))
}

fn capabilities(partitions: u32) -> Capabilities {
    let capabilities = Capabilities::none().with_durability().with_instances().with_groups().with_broadcast();
    let capabilities = capabilities.with_start_positions().with_durable_broadcast().with_replay().with_tail();
    let capabilities = capabilities.with_deferred_retries();
    if partitions == 0 { capabilities.with_order_per_subscription() } else { capabilities.with_order_per_key() }
}
