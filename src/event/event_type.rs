//! The type of an event: dotted segments, checked once, cheap to clone, compare and hash.

use std::cell::RefCell;
use std::cmp::Ordering;
use std::convert::Infallible;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use super::bounds::MAX_TEXT_BYTES;
use super::invalid::{Invalid, Problem};
use crate::base::hash_text;

/// The type of an event: 1 to 16 dotted segments, often `schema.entity.operation`.
///
/// At most 255 bytes of UTF-8. No segment is empty, and none contains `*`, white space or control characters, as
/// Unicode defines them.
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

/// The slots of a thread's cache.
const SLOTS: usize = 64;

thread_local! {
    /// The types that this thread parsed last, direct-mapped by hash. A program publishes few types many times: parsing
    /// one again allocates nothing, and threads do not contend for its reference count.
    static CACHE: RefCell<[Option<Cached>; SLOTS]> = const { RefCell::new([const { None }; SLOTS]) };
}

/// A cached type.
struct Cached {
    event_type: EventType,
    /// A reference left by an event that was dropped.
    /// Reusing it costs less than a drop and a clone.
    spare: Option<EventType>,
}

impl EventType {
    /// The most segments.
    pub const MAX_SEGMENTS: usize = 16;

    /// Parses and checks a text.
    ///
    /// Each thread caches 64 types, which it parses again without an allocation.
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
        CACHE
            .try_with(|cache| {
                let slot = &mut cache.borrow_mut()[hash as usize % SLOTS];
                match slot {
                    Some(cached) if cached.event_type.0.hash == hash && cached.event_type.as_str() == text => {
                        Ok(cached.spare.take().unwrap_or_else(|| cached.event_type.clone()))
                    }
                    _ => {
                        let event_type = Self::checked(text, hash)?;
                        *slot = Some(Cached { event_type: event_type.clone(), spare: None });
                        Ok(event_type)
                    }
                }
            })
            // A thread that ends has no cache any more.
            .unwrap_or_else(|_| Self::checked(text, hash))
    }

    fn checked(text: &str, hash: u64) -> Result<Self, Invalid> {
        check(text).map_err(|problem| Invalid::new("type", problem))?;
        Ok(Self(Arc::new(Inner { hash, text: text.into() })))
    }

    /// A clone that takes this thread's spare reference to the type, if there is one.
    pub(crate) fn again(&self) -> Self {
        let spare = CACHE.try_with(|cache| match &mut cache.borrow_mut()[self.0.hash as usize % SLOTS] {
            Some(cached) if cached.event_type == *self => cached.spare.take(),
            slot => {
                *slot = Some(Cached { event_type: self.clone(), spare: None });
                None
            }
        });
        spare.ok().flatten().unwrap_or_else(|| self.clone())
    }

    /// Leaves this reference as the spare one of this thread.
    pub(crate) fn recycle(self) {
        // A thread that ends has no cache any more.
        let _ = CACHE.try_with(|cache| match &mut cache.borrow_mut()[self.0.hash as usize % SLOTS] {
            Some(cached) if cached.spare.is_none() && cached.event_type == self => cached.spare = Some(self),
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

/// A checked value converts without an error. With this, one trait bound covers checked values and raw text.
impl From<Infallible> for Invalid {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
