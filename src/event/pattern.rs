//! Patterns of event types: their syntax, checked when a pattern is parsed, and their meaning, defined by [`matches`].
//! The room `router` finds the subscriptions of an event among many.

use std::fmt;
use std::sync::Arc;

use super::invalid::{Invalid, Problem};

/// Matches exactly one segment; as the whole pattern, every event.
pub(crate) const ONE: &str = "*";
/// Matches one or more segments, at the end of a pattern.
pub(crate) const REST: &str = "**";

/// A pattern of event types: dotted segments with wildcards.
///
/// | pattern | matches | does not match |
/// |---|---|---|
/// | `public.users.create` | `public.users.create` | `public.users.Create`, `public.users` |
/// | `public.*.create` | `public.users.create` | `public.create`, `public.a.b.create` |
/// | `public.**` | `public.users`, `public.users.create` | `public` |
/// | `*` or `**` | every event type, of any depth | |
///
/// - `*` matches exactly one segment, anywhere. As the whole pattern it matches every event.
/// - `**` matches one or more segments, and must be the last segment.
/// - Everything else is literal and case-sensitive.
///
/// A pattern has at most [`Pattern::MAX_BYTES`] bytes and [`Pattern::MAX_SEGMENTS`] segments. Clones share the text.
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

    /// Parses and checks a text.
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

    /// Whether the pattern matches an event type.
    /// The type is not checked: pass a valid one, such as the type of an event.
    #[must_use]
    pub fn matches(&self, event_type: &str) -> bool {
        matches(&self.0, event_type)
    }

    /// Whether the pattern matches every event: it is `*` or `**`.
    #[must_use]
    pub fn is_match_all(&self) -> bool {
        is_match_all(&self.0)
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

/// Whether `pattern` matches `event_type`.
///
/// **This is the definition**: the router and every back end that filters by pattern must give the same answer. Neither
/// text is checked; an invalid one yields an arbitrary answer, never a panic.
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

/// Checks the syntax of a pattern. Cheap bounds come first, so that a huge text is refused without being read.
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
