//! The error for refused input: the field, and the bound that it broke.

use std::fmt;

/// Input that was refused: the field, and the bound that it broke.
///
/// ```
/// use eventbroker::{Event, Source};
///
/// let error = Event::builder(Source::System, "orders..create").build().unwrap_err();
/// assert_eq!(error.invalid().field, "type");
/// assert_eq!(error.to_string(), "invalid event: type: segment 2 is empty");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invalid {
    /// The refused field: its name in the JSON, `pattern`, or the name of a setting.
    pub field: &'static str,
    /// The problem, with the bound that was broken.
    pub problem: Problem,
}

/// The problem of a refused field, with the bound that it broke.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The field is required but absent.
    Missing,
    /// The text is empty.
    Empty,
    /// The text is too long, in bytes.
    TooLong {
        /// The bound, in bytes.
        max: usize,
        /// The length of the text, in bytes.
        actual: usize,
    },
    /// The field has too many items, such as segments or entries.
    TooMany {
        /// The kind of item, in the plural.
        what: &'static str,
        /// The bound.
        max: usize,
        /// The number of items.
        actual: usize,
    },
    /// The JSON is nested too deeply.
    TooDeep {
        /// The bound, in levels.
        max: usize,
    },
    /// A dotted segment is empty.
    EmptySegment {
        /// The segment, counted from 1.
        position: usize,
    },
    /// The text contains a character that is not allowed.
    Forbidden {
        /// The character.
        character: char,
        /// Its byte offset in the text.
        offset: usize,
    },
    /// A wildcard is at a position where it has no meaning.
    MisplacedWildcard {
        /// The segment, counted from 1.
        position: usize,
    },
    /// The bytes are not JSON, with the parser's message.
    NotJson(String),
    /// The value is outside its bounds, with a message.
    OutOfBounds(String),
}

impl Invalid {
    pub(crate) fn new(field: &'static str, problem: Problem) -> Self {
        Self { field, problem }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.problem)
    }
}

impl std::error::Error for Invalid {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "is required"),
            Self::Empty => write!(f, "is empty"),
            Self::TooLong { max, actual } => write!(f, "is {actual} bytes long, at most {max} are allowed"),
            Self::TooMany { what, max, actual } => write!(f, "has {actual} {what}, at most {max} are allowed"),
            Self::TooDeep { max } => write!(f, "is nested more than {max} levels deep"),
            Self::EmptySegment { position } => write!(f, "segment {position} is empty"),
            Self::Forbidden { character, offset } => {
                write!(f, "holds {character:?} at byte {offset}, which is not allowed")
            }
            Self::MisplacedWildcard { position } => write!(
                f,
                "segment {position} holds a wildcard that has no meaning there: `*` must be a whole segment, `**` the last one"
            ),
            Self::NotJson(message) => write!(f, "is not JSON: {message}"),
            Self::OutOfBounds(message) => f.write_str(message),
        }
    }
}
