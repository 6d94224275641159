//! Patterns: which event types a subscription wants.
//!
//! What lives here: the rules of a pattern, checked once when it is parsed, and [`matches`], the one definition
//! of what a pattern means. What does not: finding the subscriptions of an event among many (`router`).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::invalid::{Invalid, Problem};

/// Exactly one segment; alone, every event.
pub(crate) const ONE: &str = "*";
/// One or more segments, at the end of a pattern.
pub(crate) const REST: &str = "**";

/// Which event types a subscription wants: dotted segments with wildcards.
///
/// | pattern | matches | does not match |
/// |---|---|---|
/// | `public.users.create` | `public.users.create` | `public.users.Create`, `public.users` |
/// | `public.*.create` | `public.users.create` | `public.create`, `public.a.b.create` |
/// | `public.**` | `public.users`, `public.users.create` | `public` |
/// | `*` or `**` | every event type, of any depth | |
///
/// - `*` is exactly one segment, anywhere. Alone it is every event.
/// - `**` is one or more segments, and must be the last segment.
/// - Everything else is literal and case-sensitive.
///
/// A pattern is at most [`Pattern::MAX_BYTES`] long and has at most [`Pattern::MAX_SEGMENTS`] segments. A clone
/// shares the text.
///
/// ```
/// use eventbroker::Pattern;
///
/// let pattern = Pattern::parse("public.*.create")?;
/// assert!(pattern.matches("public.users.create"));
/// assert!(!pattern.matches("public.users.delete"));
///
/// let error = Pattern::parse("public.us*").unwrap_err();
/// assert_eq!(error.field, "pattern");
/// # Ok::<(), eventbroker::error::Invalid>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pattern(Arc<str>);

impl Pattern {
    /// The longest pattern, in bytes: 255.
    pub const MAX_BYTES: usize = 255;

    /// The most segments in a pattern: 16.
    pub const MAX_SEGMENTS: usize = 16;

    /// Checks `text` and makes it a pattern.
    ///
    /// # Errors
    ///
    /// [`Invalid`] with the field `pattern` if the text is empty or longer than [`Pattern::MAX_BYTES`]; if it has
    /// more than [`Pattern::MAX_SEGMENTS`] segments; if a segment is empty; if `**` is not the last segment; if a `*`
    /// is only a part of a segment (`us*`, `***`); or if it holds white space or a control character.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        match check(text) {
            Ok(()) => Ok(Self(text.into())),
            Err(problem) => Err(Invalid::new("pattern", problem)),
        }
    }

    /// The text that was parsed.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether an event of type `event_type` is wanted.
    ///
    /// The type is not checked: pass one that is valid, such as the type of an event.
    #[must_use]
    pub fn matches(&self, event_type: &str) -> bool {
        matches(&self.0, event_type)
    }

    /// Whether every event is wanted: the pattern is `*` or `**`.
    #[must_use]
    pub fn is_match_all(&self) -> bool {
        is_match_all(&self.0)
    }
}

impl FromStr for Pattern {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

impl TryFrom<&str> for Pattern {
    type Error = Invalid;

    fn try_from(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Pattern {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pattern").field(&&*self.0).finish()
    }
}

/// Whether `pattern` wants an event of type `event_type`. **This is the definition**: the router and every back
/// end that filters by pattern must give the same answer.
///
/// Both are taken to be valid and are not checked here. What is not valid gets some answer, never a panic.
pub fn matches(pattern: &str, event_type: &str) -> bool {
    if is_match_all(pattern) {
        return true;
    }
    let mut segments = event_type.split('.');
    for wanted in pattern.split('.') {
        let Some(segment) = segments.next() else { return false };
        if wanted == REST {
            return true;
        }
        if wanted != ONE && wanted != segment {
            return false;
        }
    }
    segments.next().is_none()
}

fn is_match_all(pattern: &str) -> bool {
    pattern == ONE || pattern == REST
}

/// The rules of a pattern. Cheap bounds come first, so that a huge text is refused without being read.
fn check(text: &str) -> Result<(), Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    if text.len() > Pattern::MAX_BYTES {
        return Err(Problem::TooLong { max: Pattern::MAX_BYTES, actual: text.len() });
    }
    let count = text.split('.').count();
    if count > Pattern::MAX_SEGMENTS {
        return Err(Problem::TooMany { what: "segments", max: Pattern::MAX_SEGMENTS, actual: count });
    }
    for (position, segment) in (1..).zip(text.split('.')) {
        match segment {
            "" => return Err(Problem::EmptySegment { position }),
            ONE => {}
            REST if position == count => {}
            _ if segment.contains('*') => return Err(Problem::MisplacedWildcard { position }),
            _ => {}
        }
    }
    match text.char_indices().find(|(_, c)| c.is_whitespace() || c.is_control()) {
        Some((offset, character)) => Err(Problem::Forbidden { character, offset }),
        None => Ok(()),
    }
}
