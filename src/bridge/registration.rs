//! Registering, unregistering and removing subscriptions at the back end, and checking that it offers their options.

use std::sync::Arc;
use std::time::Duration;

use super::Bridge;
use super::command::Command;
use super::notify::Latch;
use crate::config::{Scope, StartPosition, SubscribeOptions};
use crate::outcome::{BackendError, SubscribeError};
use crate::provider::Registration;
use crate::subscription::{Subscription, SubscriptionStart};

/// How long `subscribe` and `start` wait for a registration, which then continues in the background.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);

/// Names of features that a back end may lack, for [`SubscribeError::Unsupported`].
pub(crate) const START_POSITIONS: &str = "start positions";
pub(crate) const ORDER_ACROSS_INSTANCES: &str =
    "order per key across instances; where the setting `partitions` is offered, it has to be at least 1";

/// The back end's answer to a registration.
pub(crate) type Registered = Latch<Result<(), BackendError>>;

impl Bridge {
    /// Whether the back end offers every option that a subscription asks for.
    pub(crate) fn check(&self, scope: Scope, options: &SubscribeOptions) -> Result<(), SubscribeError> {
        let (served, offers) = (self.serves(scope), &self.capabilities);
        let missing = match scope {
            Scope::Group if self.has_ingest && !offers.groups => "groups",
            Scope::Broadcast if self.has_ingest && !offers.broadcast => "broadcast",
            Scope::Broadcast if options.durable && !offers.durable_broadcast => "durable broadcast",
            _ if served && options.ordered && !offers.order_per_subscription => "order of a whole subscription",
            _ if options.ordered_across_instances && !(served && offers.order_per_key) => ORDER_ACROSS_INSTANCES,
            _ if options.start != StartPosition::New && !(served && offers.start_positions) => START_POSITIONS,
            _ => return Ok(()),
        };
        Err(SubscribeError::Unsupported { provider: self.name.clone(), feature: missing })
    }

    /// Registers a subscription. If `running`, waits for the back end's answer, at most [`REGISTER_TIMEOUT`].
    pub(crate) fn register(&self, subscription: &Subscription, running: bool) -> Result<(), SubscribeError> {
        if !self.serves(subscription.scope) {
            return Ok(());
        }
        let (name, pattern) = (Arc::clone(&subscription.name), subscription.pattern.as_str().into());
        let registered = Arc::new(Latch::new());
        let SubscriptionStart { durable, position: start, change_pattern } = subscription.start.clone();
        let registration = Registration { name, pattern, change_pattern, scope: subscription.scope, durable, start };
        self.commands.send(Command::Register(registration, Arc::clone(&registered)));
        if !running {
            self.registrations.lock().push(registered);
            return Ok(());
        }
        self.wait_until_registered(&registered)
            .map_err(|error| SubscribeError::Refused { provider: self.name.clone(), reason: error.to_string() })
    }

    /// Waits for the registrations that were made before the broker started.
    pub(crate) fn wait_for_registrations(&self) {
        let registrations = std::mem::take(&mut *self.registrations.lock());
        for registered in registrations {
            // The settling thread has recorded a refusal already.
            let _ = self.wait_until_registered(&registered);
        }
    }

    fn wait_until_registered(&self, registered: &Registered) -> Result<(), BackendError> {
        registered.wait(REGISTER_TIMEOUT).unwrap_or_else(|| {
            let reason = format!("a subscription is not registered after {REGISTER_TIMEOUT:?}; retrying");
            self.record_error(&BackendError::Unavailable(reason));
            Ok(())
        })
    }

    pub(crate) fn unregister(&self, subscription: &Subscription) {
        if self.serves(subscription.scope) {
            self.commands.send(Command::Unregister(Arc::clone(&subscription.name)));
        }
    }

    /// Removes a subscription from the back end. Waits for the answer, at most [`REGISTER_TIMEOUT`].
    pub(crate) fn remove_permanently(&self, name: &str) -> Result<bool, BackendError> {
        let removed = Arc::new(Latch::new());
        self.commands.send(Command::Remove(name.into(), Arc::clone(&removed)));
        removed.wait(REGISTER_TIMEOUT).unwrap_or_else(|| {
            let reason = format!("no answer within {REGISTER_TIMEOUT:?}; retrying");
            Err(BackendError::Unavailable(reason))
        })
    }
}
