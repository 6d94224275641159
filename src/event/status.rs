//! How far the handling of an event has come, and its name in the JSON. When it changes is not told here.

use std::fmt;
use std::str::FromStr;

use super::invalid::{Invalid, Problem};

/// How far the handling of an event has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Status {
    /// No handler has started: `pending`.
    Pending,
    /// A handler has started: `processing`.
    Processing,
    /// Every delivery has ended, and none of them badly: `completed`.
    Completed,
    /// A delivery ended as a dead letter or was dropped: `failed`.
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
