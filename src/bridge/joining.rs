//! The name of this instance at the back end, which no two live processes have at the same time.

use super::Bridge;
use crate::error::StartError;
use crate::provider::{BackendError, Settler};

/// So many processes of one host can have the same default name.
const MAX_SUFFIX: u32 = 10_000;

impl Bridge {
    /// Takes a name for this instance. A configured one must be free; of a default one, the first free variant is taken. A
    /// back end that can't be asked now is asked again when the broker runs.
    pub(crate) fn join(&self, name: String, configured: bool) -> Result<String, StartError> {
        let mut inward = self.ingest.lock();
        let Some((_, settler)) = &mut *inward else { return Ok(name) };
        let variants = (2..=MAX_SUFFIX).map(|number| format!("{name}-{number}"));
        for variant in std::iter::once(name.clone()).chain(variants) {
            match settler.join(&variant) {
                Ok(true) => return Ok(variant),
                Ok(false) if configured => return Err(StartError::InstanceTaken { id: name }),
                Ok(false) => {}
                Err(error) => {
                    self.note_error(&error);
                    *self.joining.lock() = Some(variant.clone());
                    return Ok(variant);
                }
            }
        }
        Err(StartError::InstanceTaken { id: name })
    }

    /// Takes the name that could not be taken before. Somebody else may have it by now, which can't be mended any more: it is said.
    pub(super) fn join_late(&self, settler: &mut dyn Settler) -> Result<(), BackendError> {
        let mut joining = self.joining.lock();
        let Some(name) = &*joining else { return Ok(()) };
        match settler.join(name) {
            Ok(true) => {}
            Ok(false) => self.note_error(&BackendError::Refused(format!("instance_id {name} is taken"))),
            Err(error @ BackendError::Unavailable(_)) => return Err(error),
            Err(error) => self.note_error(&error),
        }
        *joining = None;
        Ok(())
    }
}
