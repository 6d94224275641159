//! The source of an event, and its name in the JSON.

use std::fmt;
use std::str::FromStr;

use super::invalid::{Invalid, Problem};

/// The kind of component that an event comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Source {
    /// `database`: a change in a database.
    Database,
    /// `websocket`: a message on a websocket.
    Websocket,
    /// `frontend`: the user interface.
    Frontend,
    /// `system`: the system around the program.
    System,
    /// `internal`: the program itself.
    Internal,
}

impl Source {
    const ALL: [Self; 5] = [Self::Database, Self::Websocket, Self::Frontend, Self::System, Self::Internal];

    /// The name in the event's JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Database => "database",
            Self::Websocket => "websocket",
            Self::Frontend => "frontend",
            Self::System => "system",
            Self::Internal => "internal",
        }
    }
}

impl FromStr for Source {
    type Err = Invalid;

    fn from_str(name: &str) -> Result<Self, Invalid> {
        Self::ALL.into_iter().find(|source| source.as_str() == name).ok_or_else(|| {
            let problem = "is not one of database, websocket, frontend, system, internal";
            Invalid::new("source", Problem::OutOfBounds(problem.to_owned()))
        })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
