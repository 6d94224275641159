//! Subscribing and unsubscribing.

use std::sync::Arc;

use super::threads::{Phase, Role};
use super::{Engine, worker};
use crate::bridge::{ORDER_ACROSS_INSTANCES, START_POSITIONS};
use crate::config::{Mode, Scope, StartPosition, SubscribeOptions};
use crate::outcome::{SubscribeError, SubscriptionId};
use crate::provider::MEMORY;
use crate::subscription::{Handler, Identity, Pool, Subscription, Worker, Workers, in_handler};

impl Engine {
    /// Adds a subscription. It receives every matching event that is published after this returns.
    pub(crate) fn subscribe(
        self: &Arc<Self>,
        options: &SubscribeOptions,
        handler: Handler,
    ) -> Result<Arc<Subscription>, SubscribeError> {
        let pattern = options.check()?.clone();
        let scope = options.scope.unwrap_or(match self.config.mode {
            Mode::Async => Scope::Group,
            Mode::Sync => Scope::Local,
        });
        let served = self.bridge.as_ref().is_some_and(|bridge| bridge.serves(scope));
        match &self.bridge {
            Some(bridge) => bridge.check(scope, options)?,
            None => {
                let unsupported = |feature| Err(SubscribeError::Unsupported { provider: MEMORY.to_owned(), feature });
                if options.start != StartPosition::New {
                    return unsupported(START_POSITIONS);
                }
                if options.ordered_across_instances {
                    return unsupported(ORDER_ACROSS_INSTANCES);
                }
            }
        }
        let id = SubscriptionId(self.next_id());
        let pool = if options.dedicated {
            Arc::new(Pool::new(options.concurrency.unwrap_or(1)))
        } else {
            Arc::clone(&self.pool)
        };
        // A back end identifies a subscription by its name, so the name must not depend on the order of subscribing.
        let name = match &options.name {
            Some(name) => name.as_str().into(),
            None if served => pattern.as_str().into(),
            None => id.to_string().into(),
        };
        let subscription =
            Subscription::new(Identity { id, name, pattern, scope }, options, &self.config, pool, handler);
        let subscription = Arc::new(subscription);
        {
            let mut registry = self.subscriptions.lock();
            // A draining broker accepts no events, and a registration would only keep the back end busy.
            if registry.is_closed() || matches!(self.lifecycle.phase(), Phase::Draining | Phase::Stopped) {
                return Err(SubscribeError::Stopped);
            }
            if let Some(other) = registry.find_by_name(&subscription.name) {
                let pattern = other.pattern.as_str().to_owned();
                return Err(SubscribeError::NameTaken { name: subscription.name.to_string(), pattern });
            }
            registry.insert(&subscription, options.dedicated);
            // Under the registry's lock, so that a subscription is in both the registry and the router, or in neither.
            self.router.insert(&subscription.pattern, id.0, Arc::clone(&subscription));
        }
        if let Err(error) = self.start_subscription(&subscription) {
            self.remove(&subscription);
            return Err(error);
        }
        Ok(subscription)
    }

    /// Starts the dedicated threads of a new subscription and registers it at the back end, where it needs that.
    fn start_subscription(self: &Arc<Self>, subscription: &Arc<Subscription>) -> Result<(), SubscribeError> {
        let running = self.lifecycle.phase() == Phase::Running;
        if running {
            self.start_dedicated(subscription).map_err(|(name, reason)| SubscribeError::Thread { name, reason })?;
        }
        self.bridge.as_ref().map_or(Ok(()), |bridge| bridge.register(subscription, running))
    }

    /// Starts the threads of a dedicated subscription.
    pub(crate) fn start_dedicated(self: &Arc<Self>, subscription: &Subscription) -> Result<(), (String, String)> {
        if Arc::ptr_eq(&subscription.pool, &self.pool) || !subscription.pool.open() {
            return Ok(());
        }
        (1..=subscription.concurrency())
            .try_for_each(|number| self.add_worker(&subscription.pool, &format!("{}-{number}", subscription.name)))
    }

    /// Starts one worker thread of a pool.
    pub(crate) fn add_worker(self: &Arc<Self>, pool: &Arc<Workers>, name: &str) -> Result<(), (String, String)> {
        let worker = Arc::new(Worker::new());
        pool.add_worker(Arc::clone(&worker));
        let (engine, own_pool, this) = (Arc::clone(self), Arc::clone(pool), Arc::clone(&worker));
        let started = self.lifecycle.spawn(Role::Engine, &format!("worker-{name}"), move || {
            worker::work(&engine, &own_pool, &this);
            own_pool.remove_worker(&this);
        });
        if started.is_err() {
            pool.remove_worker(&worker);
        }
        started
    }

    /// Removes a subscription and cancels its deliveries. Calls may still run. False if it was removed before.
    pub(crate) fn remove(self: &Arc<Self>, subscription: &Arc<Subscription>) -> bool {
        let found = {
            let mut registry = self.subscriptions.lock();
            self.router.remove(&subscription.pattern, subscription.id.0);
            registry.remove(subscription)
        };
        subscription.close();
        if let Some(bridge) = &self.bridge {
            // Before leases are released, so that the ingest does not receive these deliveries again.
            bridge.inbound.wake();
        }
        self.cancel_all(subscription);
        if let Some(bridge) = &self.bridge {
            bridge.unregister(subscription);
        }
        if !Arc::ptr_eq(&subscription.pool, &self.pool) {
            subscription.pool.close();
        }
        found
    }

    /// Removes a subscription and waits until no call runs; inside a handler or on a worker thread it does not wait.
    /// Returns how many calls still run; `None` if the subscription is unknown.
    pub(crate) fn unsubscribe(self: &Arc<Self>, id: SubscriptionId) -> Option<u64> {
        let subscription = self.subscriptions.lock().find(id)?;
        if !self.remove(&subscription) {
            return None;
        }
        if !in_handler() {
            subscription.wait_for_calls();
        }
        Some(subscription.running())
    }
}
