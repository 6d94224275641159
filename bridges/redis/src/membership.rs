//! This provider among all that use the stream: its boot id, the name of its instance, and its heartbeat.

use std::sync::Arc;
use std::time::Duration;

use eventbroker::provider::BackendError;
use eventbroker_bridge_kit::identity::new_boot_id;
use parking_lot::Mutex;

use crate::scripts::{Client, SEND_HEARTBEAT, millis};

/// A provider whose heartbeat is this many leases old is gone: its broadcast subscriptions are removed.
const GONE_AFTER: u32 = 10;

/// The consumers that stand for released deliveries, now and in earlier versions.
const RESERVED: [&str; 2] = ["released", "~"];

/// This provider as a member.
pub(crate) struct Membership {
    /// Distinguishes this provider from all others.
    pub(crate) boot: String,
    pub(crate) lease_time: Duration,
    name: Mutex<String>,
}

impl Membership {
    pub(crate) fn new(lease_time: Duration) -> Self {
        let boot = new_boot_id();
        Self { name: Mutex::new(boot.clone()), boot, lease_time }
    }

    /// The consumer that this provider reads as: the name of its instance, or the boot id before it has joined.
    pub(crate) fn name(&self) -> String {
        self.name.lock().clone()
    }

    /// Takes the name of an instance. False if another provider has it, or if it is reserved.
    pub(crate) fn join(&self, client: &mut Client, name: &str) -> Result<bool, BackendError> {
        let is_ours = !RESERVED.contains(&name) && self.send_heartbeat(client, name, &[])?;
        if is_ours {
            name.clone_into(&mut self.name.lock());
        }
        Ok(is_ours)
    }

    /// Shows that this provider is alive, and renews its name and its hold on partitions. False if another provider has the name.
    pub(crate) fn renew(&self, client: &mut Client, xgroups: &[Arc<str>]) -> Result<bool, BackendError> {
        let name = self.name();
        // Before it has joined there is no name to renew.
        let name = if name == self.boot { "" } else { &name };
        self.send_heartbeat(client, name, xgroups)
    }

    fn send_heartbeat(&self, client: &mut Client, name: &str, xgroups: &[Arc<str>]) -> Result<bool, BackendError> {
        let (lease, kept) = (millis(self.lease_time), millis(self.lease_time.saturating_mul(GONE_AFTER)));
        let mut arguments = vec![name, &self.boot, &lease, &kept];
        arguments.extend(xgroups.iter().map(|it| &**it));
        client.run(&SEND_HEARTBEAT, &arguments)
    }

    /// Removes the heartbeat and the name. Otherwise they expire.
    pub(crate) fn leave(&self, client: &mut Client) -> Result<(), BackendError> {
        let key = client.layout.key_of("instance", &self.name());
        let holder: Option<String> = client.query(redis::cmd("GET").arg(&key))?;
        let mut gone = redis::cmd("DEL");
        gone.arg(client.layout.key_of("boot", &self.boot));
        if holder.as_deref() == Some(&self.boot) {
            gone.arg(&key);
        }
        client.query(&gone)
    }
}
