//! Building a broker: one setting after the other, then all are checked. What the settings mean is told in `config`.

use std::fmt;
use std::sync::Arc;

use super::Broker;
use crate::base::{Clock, ManualClock};
use crate::config::{Config, Confirm, Mode, RetryPolicy};
use crate::engine::Engine;
use crate::outcome::StartError;
use crate::provider::Provider;
use crate::telemetry::{Propagator, SharedPropagator};

/// Builds a [`Broker`]. Made by [`Broker::builder`].
#[derive(Default)]
#[must_use]
pub struct BrokerBuilder {
    config: Config,
    provider: Option<Provider>,
    clock: Option<ManualClock>,
    propagator: Option<SharedPropagator>,
}

impl BrokerBuilder {
    /// Takes all settings from a [`Config`]; those made before are gone.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// What `publish` does. Default [`Mode::Async`].
    pub fn mode(mut self, mode: Mode) -> Self {
        self.config.mode = mode;
        self
    }

    /// Threads that run handlers. Default 10; 1 to 1,024.
    pub fn worker_count(mut self, threads: usize) -> Self {
        self.config.worker_count = threads;
        self
    }

    /// To how many threads the pool may grow while handlers are slow. Default 4 × `worker_count`; at most 4,096.
    pub fn max_workers(mut self, threads: usize) -> Self {
        self.config.max_workers = Some(threads);
        self
    }

    /// Queue capacity of each subscription, in events. Default 1,000; 1 to 16,777,216.
    pub fn buffer_size(mut self, events: usize) -> Self {
        self.config.buffer_size = events;
        self
    }

    /// How failed deliveries are retried. Default: 3 retries after 1 s, 2 s, 4 s, ± 10 %.
    pub fn retry_policy(mut self, policy: RetryPolicy) -> Self {
        self.config.retry_policy = policy;
        self
    }

    /// Completed and failed events held in the store. Default 10,000; 1 to 100,000,000.
    pub fn max_events(mut self, events: usize) -> Self {
        self.config.max_events = events;
        self
    }

    /// Events accepted and not yet settled. Default 100,000; 1 to 100,000,000.
    pub fn max_in_flight(mut self, events: usize) -> Self {
        self.config.max_in_flight = events;
        self
    }

    /// When an event of a back end is accepted. Default [`Confirm::Confirmed`].
    pub fn confirm(mut self, confirm: Confirm) -> Self {
        self.config.confirm = confirm;
        self
    }

    /// Whether events are counted and timed by source and type, for [`Broker::metrics`]. Default true.
    pub fn metrics(mut self, by_type: bool) -> Self {
        self.config.metrics = by_type;
        self
    }

    /// The name of this instance. Default: the host's name, with a suffix if another live process of the back end has that.
    pub fn instance_id(mut self, id: impl Into<String>) -> Self {
        self.config.instance_id = Some(id.into());
        self
    }

    /// The back end. Default [`Provider::memory`].
    pub fn provider(mut self, provider: Provider) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Carries the context of traces into events and out of them. Default: nobody; contexts that events bring are kept.
    pub fn propagator(mut self, propagator: impl Propagator + 'static) -> Self {
        self.propagator = Some(Arc::new(propagator));
        self
    }

    /// Makes all delays and deadlines follow a clock that tests move.
    pub fn manual_clock(mut self, clock: &ManualClock) -> Self {
        self.clock = Some(clock.clone());
        self
    }

    /// Builds a broker that does not run yet: it takes subscriptions, and refuses events until [`Broker::start`].
    ///
    /// # Errors
    /// [`StartError::Invalid`] names the setting and its bound; [`StartError::InstanceTaken`] the `instance_id` that another live
    /// process of the back end has, which may take as long as the lease of one that has died.
    pub fn build(self) -> Result<Broker, StartError> {
        let clock = self.clock.map_or_else(Clock::system, Clock::manual);
        let provider = self.provider.unwrap_or_else(Provider::memory);
        Engine::new(self.config, clock, provider, self.propagator).map(Broker::of)
    }

    /// Builds a broker and starts it.
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
