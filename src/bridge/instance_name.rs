//! The name of this instance at the back end, which no two live processes have at the same time.

use super::Bridge;
use crate::outcome::{BackendError, StartError};
use crate::provider::Settler;

/// So many processes of one host can have the same default name.
const MAX_SUFFIX: u32 = 10_000;

/// Time between two tries for a name that somebody else has, in nanoseconds.
const TRY_AGAIN: u64 = 1_000_000_000;

/// A name that the back end does not hold for this process yet.
#[derive(Debug)]
pub(super) struct InstanceNameClaim {
    id: String,
    next_try: u64,
}

impl Bridge {
    /// Takes a name for this instance. A configured one must be free; of a default one, the first free variant is taken. A
    /// back end that can't be asked now is asked again when the broker runs.
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

    /// Takes the name that could not be taken before. Somebody else may have it by now, possibly one that has died: that is said, and
    /// it is tried again.
    pub(crate) fn claim_late(&self, settler: &mut dyn Settler, now: u64) -> Result<(), BackendError> {
        let mut claim = self.instance_name.lock();
        let Some(name) = claim.as_mut().filter(|it| now >= it.next_try) else { return Ok(()) };
        name.next_try = now.saturating_add(TRY_AGAIN);
        match settler.join(&name.id) {
            Ok(true) => *claim = None,
            Ok(false) => {
                let taken = StartError::InstanceTaken { id: name.id.clone() };
                self.record_error(&BackendError::Refused(taken.to_string()));
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
