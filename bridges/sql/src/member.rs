//! This provider as a member of its group.

use eventbroker_bridge_kit::identity::new_boot_id;

use crate::leases::Leases;
use crate::settings::Settings;
use crate::subscriptions::LocalSubscriptions;

/// One provider: its id, its settings, the subscriptions that it serves, and the leases that it holds.
pub(crate) struct Member {
    /// The id, which no other provider of the database has.
    pub(crate) id: String,
    pub(crate) settings: Settings,
    pub(crate) subscriptions: LocalSubscriptions,
    pub(crate) leases: Leases,
}

impl Member {
    pub(crate) fn new(settings: &Settings) -> Self {
        let (id, settings) = (new_boot_id(), settings.clone());
        Self { id, settings, subscriptions: LocalSubscriptions::default(), leases: Leases::default() }
    }
}
