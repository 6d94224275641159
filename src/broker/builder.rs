//! Building a broker. `build` checks the settings, which are described in `config`.

use std::fmt;
use std::sync::Arc;

use super::Broker;
use crate::base::{Clock, ManualClock};
use crate::config::{Config, Confirm, Mode, RetryPolicy};
use crate::engine::Engine;
use crate::outcome::StartError;
use crate::provider::Provider;
use crate::telemetry::{Propagator, SharedPropagator};

/// Builds a [`Broker`]. Created by [`Broker::builder`].
#[derive(Default)]
#[must_use]
pub struct BrokerBuilder {
    config: Config,
    provider: Option<Provider>,
    clock: Option<ManualClock>,
    propagator: Option<SharedPropagator>,
}

impl BrokerBuilder {
    /// Replaces all settings by those of a [`Config`].
    ///
    /// The provider, the clock and the propagator are kept.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets what [`Broker::publish`] waits for. Default [`Mode::Async`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.config.mode = mode;
        self
    }

    /// Sets the number of threads that run handlers. Default 10; 1 to 1,024.
    pub fn worker_count(mut self, threads: usize) -> Self {
        self.config.worker_count = threads;
        self
    }

    /// Sets how many threads the pool may have while handlers are slow.
    ///
    /// Default 4 × `worker_count`, at most 4,096; `worker_count` to 4,096.
    pub fn max_workers(mut self, threads: usize) -> Self {
        self.config.max_workers = Some(threads);
        self
    }

    /// Sets the queue capacity of each subscription, in events.
    ///
    /// Default 1,000; 1 to 16,777,216.
    pub fn buffer_size(mut self, events: usize) -> Self {
        self.config.buffer_size = events;
        self
    }

    /// Sets how failed deliveries are retried.
    ///
    /// Default: 3 retries after 1 s, 2 s, 4 s, ± 10 %.
    pub fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.config.retry_policy = policy;
        self
    }

    /// Sets how many completed and failed events the store holds.
    ///
    /// Default 10,000; 1 to 100,000,000.
    pub fn max_events(mut self, events: usize) -> Self {
        self.config.max_events = events;
        self
    }

    /// Sets how many events may be accepted and not yet settled.
    ///
    /// Default 100,000; 1 to 100,000,000. Beyond it a publish is refused.
    pub fn max_in_flight(mut self, events: usize) -> Self {
        self.config.max_in_flight = events;
        self
    }

    /// Sets when an event of a back end is accepted. Default [`Confirm::Confirmed`].
    pub fn confirm(mut self, confirm: Confirm) -> Self {
        self.config.confirm = confirm;
        self
    }

    /// Sets whether events are counted and timed by source and type. Default true.
    ///
    /// [`Broker::metrics`] reports the counts and times.
    pub fn metrics(mut self, by_type: bool) -> Self {
        self.config.metrics = by_type;
        self
    }

    /// Sets the name of this instance, 1 to 255 bytes.
    ///
    /// Default: the host's name, with a suffix if another live process of the back end has that name.
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.config.instance_id = Some(id.into());
        self
    }

    /// Sets the back end. Default [`Provider::memory`].
    pub fn provider(mut self, provider: Provider) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Sets the propagator, which carries trace contexts into events and out of them.
    ///
    /// Default: none. A context that an event already has is kept.
    pub fn propagator(mut self, propagator: impl Propagator + 'static) -> Self {
        self.propagator = Some(Arc::new(propagator));
        self
    }

    /// Makes all delays and deadlines follow a clock that a test moves.
    pub fn manual_clock(mut self, clock: &ManualClock) -> Self {
        self.clock = Some(clock.clone());
        self
    }

    /// Builds a broker that accepts subscriptions, and no events until [`Broker::start`].
    ///
    /// Does not block without a back end. With one, blocks until the back end has granted the instance name, which may
    /// take as long as the lease of a dead process. If the back end is unavailable, the name is claimed later.
    ///
    /// # Errors
    /// [`StartError::Invalid`] with the setting and its bound; [`StartError::InstanceTaken`] if another live process of
    /// the back end has the configured `instance_id`.
    pub fn build(self) -> Result<Broker, StartError> {
        let clock = self.clock.map_or_else(Clock::system, Clock::manual);
        let provider = self.provider.unwrap_or_else(Provider::memory);
        Engine::new(self.config, clock, provider, self.propagator).map(Broker::of)
    }

    /// Builds a broker and starts it. Blocks as both do.
    ///
    /// # Errors
    /// As [`build`](Self::build) and [`Broker::start`].
    pub fn start(self) -> Result<Broker, StartError> {
        let broker = self.build()?;
        broker.start()?;
        Ok(broker)
    }
}

impl fmt::Debug for BrokerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrokerBuilder")
            .field("config", &self.config)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}
