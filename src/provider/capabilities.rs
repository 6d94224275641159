//! The features that a back end offers. The room `bridge` refuses requests for features that are missing.

/// The features that a back end offers.
///
/// The broker checks them when a subscription, a stream or a replay asks for one, and answers with an error that names
/// the missing feature. A bridge therefore never receives a request for a feature that it does not declare here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Capabilities {
    /// Accepted events survive the end of the process.
    pub durable: bool,
    /// Other instances receive the events too.
    pub across_instances: bool,
    /// It delivers each event to one member of a [group](crate::Scope::Group).
    pub groups: bool,
    /// It [delivers each event to every instance](crate::Scope::Broadcast).
    pub broadcast: bool,
    /// It keeps the order of a key across instances.
    pub order_per_key: bool,
    /// It keeps the order of a whole [ordered](crate::SubscribeOptions::ordered) subscription.
    pub order_per_subscription: bool,
    /// A new subscription can start at an earlier [position](crate::StartPosition).
    pub start_positions: bool,
    /// A [durable](crate::SubscribeOptions::durable) broadcast subscription outlives its instance.
    pub durable_broadcast: bool,
    /// Its operator can [replay](super::Operator::replay) events.
    pub replay: bool,
    /// Its operator can [tail](super::Operator::tail) the events of all instances.
    pub tail: bool,
    /// It can keep a failed delivery until its retry is [due](super::LeaseOutcome::Deferred).
    pub deferred_retries: bool,
}

impl Capabilities {
    /// No feature: events stay in this process.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds groups: one member handles each event.
    pub fn with_groups(mut self) -> Self {
        self.groups = true;
        self
    }

    /// Adds events that outlive the process.
    pub fn with_durability(mut self) -> Self {
        self.durable = true;
        self
    }

    /// Adds deliveries to other instances.
    pub fn with_instances(mut self) -> Self {
        self.across_instances = true;
        self
    }

    /// Adds broadcast: every instance handles each event.
    pub fn with_broadcast(mut self) -> Self {
        self.broadcast = true;
        self
    }

    /// Adds the order of a key across instances.
    pub fn with_order_per_key(mut self) -> Self {
        self.order_per_key = true;
        self
    }

    /// Adds the order of all events of a subscription.
    pub fn with_order_per_subscription(mut self) -> Self {
        self.order_per_subscription = true;
        self
    }

    /// Adds subscriptions that start at an earlier position.
    pub fn with_start_positions(mut self) -> Self {
        self.start_positions = true;
        self
    }

    /// Adds broadcast subscriptions that outlive their process.
    pub fn with_durable_broadcast(mut self) -> Self {
        self.durable_broadcast = true;
        self
    }

    /// Adds replay.
    pub fn with_replay(mut self) -> Self {
        self.replay = true;
        self
    }

    /// Adds streams of the events of all instances.
    pub fn with_tail(mut self) -> Self {
        self.tail = true;
        self
    }

    /// Adds retries that wait at the back end if their delay exceeds the lease time.
    pub fn with_deferred_retries(mut self) -> Self {
        self.deferred_retries = true;
        self
    }
}
