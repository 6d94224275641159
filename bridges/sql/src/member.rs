//! This provider as a member of its group.

use crate::leases::Leases;
use crate::settings::Settings;
use crate::subscriptions::LocalSubscriptions;

/// One provider: its id, its settings, the subscriptions that it serves, and the leases that it holds.
#[derive(Debug)]
pub(crate) struct Member {
    /// The id, which no other provider of the database has.
    pub(crate) id: String,
    pub(crate) settings: Settings,
    pub(crate) subscriptions: LocalSubscriptions,
    pub(crate) leases: Leases,
}

impl Member {
    pub(crate) fn new(id: String, settings: &Settings) -> Self {
        Self { id, settings: settings.clone(), subscriptions: LocalSubscriptions::default(), leases: Leases::default() }
    }
}
