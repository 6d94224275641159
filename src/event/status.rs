//! The status of an event, and its name in the JSON.

use std::fmt;
use std::str::FromStr;

use super::invalid::{Invalid, Problem};

/// The status of an event: how far its handling has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Status {
    /// `pending`: no handler has started.
    Pending,
    /// `processing`: a handler has started, and a delivery is open.
    Processing,
    /// `completed`: every delivery has ended, none as a dead letter or dropped.
    Completed,
    /// `failed`: every delivery has ended, one as a dead letter or dropped.
    Failed,
}

impl Status {
    const ALL: [Self; 4] = [Self::Pending, Self::Processing, Self::Completed, Self::Failed];

    /// The name in the event's JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Processing => "processing",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for Status {
    type Err = Invalid;

    fn from_str(name: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|status| status.as_str() == name).ok_or_else(|| {
            let problem = "is not one of pending, processing, completed, failed";
            Invalid::new("status", Problem::OutOfBounds(problem.to_owned()))
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
