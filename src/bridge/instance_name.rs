//! The name of this instance at the back end. No two live processes hold the same name at the same time.

use super::Bridge;
use crate::outcome::{BackendError, StartError};
use crate::provider::Settler;

/// The highest suffix of a default name, and so the most processes of one host that can share it.
const MAX_SUFFIX: u32 = 10_000;

/// Time between two claims of a name that another process holds, in nanoseconds.
const CLAIM_INTERVAL: u64 = 1_000_000_000;

/// A name that the back end has not granted to this process yet.
#[derive(Debug)]
pub(super) struct InstanceNameClaim {
    id: String,
    next_try: u64,
}

impl Bridge {
    /// Claims a name for this instance. A configured name must be free; for a default name, the first free variant is
    /// claimed. If the back end is unavailable, the claim is repeated when the broker runs.
    pub(crate) fn claim_name(&self, name: String, configured: bool) -> Result<String, StartError> {
        let mut parts = self.parts.lock();
        let Some((_, settler)) = &mut parts.ingest else { return Ok(name) };
        let variants = (2..=MAX_SUFFIX).map(|number| format!("{name}-{number}"));
        for variant in std::iter::once(name.clone()).chain(variants) {
            match settler.join(&variant) {
                Ok(true) => return Ok(variant),
                Ok(false) if configured => return Err(StartError::InstanceTaken { id: name }),
                Ok(false) => {}
                Err(error) => {
                    self.record_error(&error);
                    *self.instance_name.lock() = Some(InstanceNameClaim { id: variant.clone(), next_try: 0 });
                    return Ok(variant);
                }
            }
        }
        Err(StartError::InstanceTaken { id: name })
    }

    /// Claims the name that could not be claimed before. If another process, possibly a dead one, holds the name, that
    /// is recorded as an error and the claim is repeated after [`CLAIM_INTERVAL`].
    pub(crate) fn claim_late(&self, settler: &mut dyn Settler, now: u64) -> Result<(), BackendError> {
        let mut claim = self.instance_name.lock();
        let Some(due) = claim.as_mut().filter(|it| now >= it.next_try) else { return Ok(()) };
        due.next_try = now.saturating_add(CLAIM_INTERVAL);
        match settler.join(&due.id) {
            Ok(true) => *claim = None,
            Ok(false) => {
                let taken = StartError::InstanceTaken { id: due.id.clone() };
                self.record_error(&BackendError::Refused(taken.to_string()));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
