//! The type of an event: dotted segments, checked once, cheap to clone, compare and hash. Which patterns match it
//! is not told here.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::convert::Infallible;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use super::bounds::MAX_TEXT_BYTES;
use super::invalid::{Invalid, Problem};
use crate::base::hash_text;

/// The type of an event: 1 to 16 segments with dots between them, often `schema.entity.operation`.
///
/// At most 255 bytes of UTF-8; no segment is empty; no `*`, no white space and no control characters (as Unicode
/// has them).
///
/// ```
/// use eventbroker::EventType;
///
/// let event_type = EventType::parse("public.users.create")?;
/// assert_eq!(event_type.segments().collect::<Vec<_>>(), ["public", "users", "create"]);
/// assert!(EventType::parse("public..create").is_err());
/// # Ok::<(), eventbroker::error::Invalid>(())
/// ```
#[derive(Clone)]
pub struct EventType(Arc<Inner>);

struct Inner {
    hash: u64,
    text: Box<str>,
}

/// How many types each thread remembers.
const REMEMBERED: usize = 64;

thread_local! {
    /// The types that this thread parsed last, each in the place that its hash names. A program publishes few
    /// types many times; parsing one of them again allocates nothing, and threads share no reference count.
    static KNOWN: RefCell<[Option<Known>; REMEMBERED]> = const { RefCell::new([const { None }; REMEMBERED]) };
}

/// A type that a thread remembers.
struct Known {
    event_type: EventType,
    /// One that an event of this type has left behind: to give it out again costs less than to clone and drop.
    spare: Option<EventType>,
}

impl EventType {
    /// The most segments.
    pub const MAX_SEGMENTS: usize = 16;

    /// Checks a text and makes a type of it. Each thread remembers some types, and gives them out again without an
    /// allocation.
    ///
    /// # Errors
    /// The field `type` is [`Empty`](Problem::Empty), [`TooLong`](Problem::TooLong) (more than 255 bytes), has more
    /// than 16 segments ([`TooMany`](Problem::TooMany)), an [`EmptySegment`](Problem::EmptySegment), or a `*`, white
    /// space or a control character ([`Forbidden`](Problem::Forbidden)).
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(Invalid::new("type", Problem::TooLong { max: MAX_TEXT_BYTES, actual: text.len() }));
        }
        let hash = hash_text(text);
        KNOWN
            .try_with(|known| {
                let place = &mut known.borrow_mut()[hash as usize % REMEMBERED];
                match place {
                    Some(known) if known.event_type.0.hash == hash && known.event_type.as_str() == text => {
                        Ok(known.spare.take().unwrap_or_else(|| known.event_type.clone()))
                    }
                    _ => {
                        let event_type = Self::checked(text, hash)?;
                        *place = Some(Known { event_type: event_type.clone(), spare: None });
                        Ok(event_type)
                    }
                }
            })
            // While a thread ends it remembers nothing any more.
            .unwrap_or_else(|_| Self::checked(text, hash))
    }

    fn checked(text: &str, hash: u64) -> Result<Self, Invalid> {
        check(text).map_err(|problem| Invalid::new("type", problem))?;
        Ok(Self(Arc::new(Inner { hash, text: text.into() })))
    }

    /// The same type once more, for another event of this thread.
    pub(crate) fn again(&self) -> Self {
        let spare = KNOWN.try_with(|known| match &mut known.borrow_mut()[self.0.hash as usize % REMEMBERED] {
            Some(known) if known.event_type == *self => known.spare.take(),
            place => {
                *place = Some(Known { event_type: self.clone(), spare: None });
                None
            }
        });
        spare.ok().flatten().unwrap_or_else(|| self.clone())
    }

    /// Leaves a type that is no longer needed to the next event of this thread that has the same one.
    pub(crate) fn recycle(self) {
        // While a thread ends it remembers nothing any more.
        let _ = KNOWN.try_with(|known| match &mut known.borrow_mut()[self.0.hash as usize % REMEMBERED] {
            Some(known) if known.spare.is_none() && known.event_type == self => known.spare = Some(self),
            _ => {}
        });
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// The segments, from the left; at least one, at most 16.
    pub fn segments(&self) -> impl Iterator<Item = &str> {
        self.as_str().split('.')
    }

    /// The hash of the text. It differs from process to process.
    pub(crate) fn hash64(&self) -> u64 {
        self.0.hash
    }
}

fn check(text: &str) -> Result<(), Problem> {
    if text.is_empty() {
        return Err(Problem::Empty);
    }
    let segments = text.split('.').count();
    if segments > EventType::MAX_SEGMENTS {
        return Err(Problem::TooMany { what: "segments", max: EventType::MAX_SEGMENTS, actual: segments });
    }
    if let Some(index) = text.split('.').position(str::is_empty) {
        return Err(Problem::EmptySegment { position: index + 1 });
    }
    match text.char_indices().find(|(_, c)| *c == '*' || c.is_whitespace() || c.is_control()) {
        Some((offset, character)) => Err(Problem::Forbidden { character, offset }),
        None => Ok(()),
    }
}

impl PartialEq for EventType {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.hash == other.0.hash && self.0.text == other.0.text
    }
}

impl Eq for EventType {}

impl Hash for EventType {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl Ord for EventType {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for EventType {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl AsRef<str> for EventType {
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventType").field(&self.as_str()).finish()
    }
}

impl FromStr for EventType {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

impl TryFrom<&str> for EventType {
    type Error = Invalid;

    fn try_from(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

impl TryFrom<String> for EventType {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl TryFrom<&String> for EventType {
    type Error = Invalid;

    fn try_from(text: &String) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

impl From<&EventType> for EventType {
    fn from(event_type: &EventType) -> Self {
        event_type.clone()
    }
}

/// A value that is already checked converts without an error; this lets one bound cover it and raw text alike.
impl From<Infallible> for Invalid {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
