//! Which settings are allowed, and what follows from them.

use std::time::Duration;

use crate::{Nats, OpenError, names};

impl Nats {
    /// How long the server knows an id.
    pub(crate) fn known_for(&self) -> Duration {
        const USUAL: Duration = Duration::from_secs(120);
        self.dedupe_window.unwrap_or(if self.max_age.is_zero() { USUAL } else { self.max_age.min(USUAL) })
    }

    /// Whether all settings are within their bounds.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let least = [
            ("lease_time", self.lease_time, Duration::from_millis(100)),
            ("dedupe_window", self.known_for(), Duration::from_secs(1)),
            ("retention", self.retention, Duration::from_secs(1)),
            // Who serves a subscription says so each third of a lease.
            ("idle_expiry", self.idle_expiry, self.lease_time.max(Duration::from_secs(1))),
        ];
        for (name, is, least) in least {
            if is < least {
                return Err(OpenError::Setting(format!("{name}: is {is:?}, at least {least:?} is required")));
            }
        }
        if !self.max_age.is_zero() && self.max_age < self.known_for() {
            let (is, least) = (self.max_age, self.known_for());
            return Err(OpenError::Setting(format!(
                "max_age: is {is:?}, at least dedupe_window ({least:?}) is required"
            )));
        }
        let texts = [
            ("stream_name", &self.stream_name, 200),
            ("subject_prefix", &self.subject_prefix, 100),
            ("consumer_group", &self.consumer_group, 255),
        ];
        for (name, text, most) in texts {
            let length = text.len();
            if !(1..=most).contains(&length) {
                return Err(OpenError::Setting(format!("{name}: is {length} bytes long, 1 to {most} are allowed")));
            }
        }
        for (name, text) in [("stream_name", &self.stream_name), ("subject_prefix", &self.subject_prefix)] {
            if names::token(text) != *text {
                let problem = format!("{name}: is {text:?}, only letters, digits, - and _ are allowed");
                return Err(OpenError::Setting(problem));
            }
        }
        if self.partitions > 64 {
            return Err(OpenError::Setting(format!("partitions: is {}, at most 64 is allowed", self.partitions)));
        }
        if !(1..=5).contains(&self.replicas) {
            return Err(OpenError::Setting(format!("replicas: is {}, 1 to 5 are allowed", self.replicas)));
        }
        Ok(())
    }
}
