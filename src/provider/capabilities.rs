//! What a back end is able to do, as it says itself. Who asks for what is not there is refused elsewhere (`bridge`).

/// What a back end offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Capabilities {
    /// Accepted events survive the end of the process.
    pub durable: bool,
    /// Other instances can receive the events.
    pub across_instances: bool,
    /// It can hand each event to one member of a group.
    pub groups: bool,
    /// It can hand each event to every instance.
    pub broadcast: bool,
    /// It keeps the order of a key across instances.
    pub order_per_key: bool,
    /// It keeps the order of all events of a subscription, for one that is [ordered](crate::SubscribeOptions::ordered).
    pub order_per_subscription: bool,
    /// A new subscription can start in the past.
    pub start_positions: bool,
    /// A broadcast subscription can go on where its instance left it.
    pub durable_broadcast: bool,
    /// Its [operator](super::Operator) can deliver events again.
    pub replay: bool,
    /// Its [operator](super::Operator) can show events as they come, those of other instances too.
    pub tail: bool,
    /// It can keep a failed delivery until its retry is due, with what was tried: [`Deferred`](super::LeaseOutcome::Deferred).
    pub deferred_retries: bool,
}

impl Capabilities {
    /// Nothing beyond this process.
    pub fn none() -> Self {
        Self::default()
    }

    /// With groups: each event handled by one member.
    pub fn with_groups(mut self) -> Self {
        self.groups = true;
        self
    }

    /// With events that outlive the process.
    pub fn with_durability(mut self) -> Self {
        self.durable = true;
        self
    }

    /// With members in other instances.
    pub fn with_instances(mut self) -> Self {
        self.across_instances = true;
        self
    }

    /// With deliveries to every instance.
    pub fn with_broadcast(mut self) -> Self {
        self.broadcast = true;
        self
    }

    /// With the order of a key kept across instances.
    pub fn with_order_per_key(mut self) -> Self {
        self.order_per_key = true;
        self
    }

    /// With the order of all events of a subscription kept.
    pub fn with_order_per_subscription(mut self) -> Self {
        self.order_per_subscription = true;
        self
    }

    /// With subscriptions that start in the past.
    pub fn with_start_positions(mut self) -> Self {
        self.start_positions = true;
        self
    }

    /// With broadcast subscriptions that outlive their process.
    pub fn with_durable_broadcast(mut self) -> Self {
        self.durable_broadcast = true;
        self
    }

    /// With events that are delivered again.
    pub fn with_replay(mut self) -> Self {
        self.replay = true;
        self
    }

    /// With streams of every instance's events.
    pub fn with_tail(mut self) -> Self {
        self.tail = true;
        self
    }

    /// With retries that wait at the back end if they wait for longer than a lease lasts.
    pub fn with_deferred_retries(mut self) -> Self {
        self.deferred_retries = true;
        self
    }
}
