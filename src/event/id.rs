//! The id of an event: its rules, and the UUIDs of version 7 that this process generates.

use std::cell::Cell;
use std::cmp::Ordering;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{self, AtomicU64};
use std::sync::{Arc, LazyLock};

use super::bounds;
use super::invalid::{Invalid, Problem};

/// The id of an event: 1 to 255 bytes of UTF-8 without control characters.
///
/// An event that is built without an id gets a UUID of version 7 (RFC 9562). The generated ids of one thread ascend,
/// even if the clock is set back; those of several threads ascend to about a millisecond. They are unique but not
/// secret: others can be guessed from some of them.
///
/// A UUID in its canonical form (lower case, with hyphens) takes 16 bytes; any other id is kept as text.
/// [`to_string`](ToString::to_string) returns exactly the text that was parsed. Ids are ordered as their texts are.
///
/// ```
/// use eventbroker::EventId;
///
/// let id = EventId::parse("invoice-42")?;
/// assert_eq!(id.to_string(), "invoice-42");
/// assert!(EventId::parse("").is_err());
/// # Ok::<(), eventbroker::error::Invalid>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct EventId(Form);

#[derive(Clone, PartialEq, Eq, Hash)]
enum Form {
    /// A UUID that this process generated, or one that looks like it.
    /// It contains a sequence number.
    Own([u8; 16]),
    Uuid([u8; 16]),
    Text(Arc<str>),
}

const _: () = assert!(size_of::<EventId>() <= 24);

/// The length of a UUID with its hyphens, in bytes.
pub(crate) const UUID_TEXT_BYTES: usize = 36;

impl EventId {
    /// Parses and checks a text.
    ///
    /// # Errors
    /// The field `id` is [`Empty`](Problem::Empty), [`TooLong`](Problem::TooLong) (more than 255 bytes), or holds a
    /// control character ([`Forbidden`](Problem::Forbidden)).
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.is_empty() {
            return Err(Invalid::new("id", Problem::Empty));
        }
        if let Some(bytes) = canonical_uuid(text) {
            return Ok(Self::of_uuid(bytes));
        }
        bounds::check_text(text).map_err(|problem| Invalid::new("id", problem))?;
        Ok(Self(Form::Text(text.into())))
    }

    /// Generates a UUID of version 7. `at_nanos` is the wall time, in nanoseconds since 1970.
    /// Uses the RFC's fixed-length counter: 48 bits of milliseconds, the version, the upper 12 bits of the counter, the
    /// variant, the lower 30 bits of the counter, and a tail of 32 bits by which this process recognises its own ids.
    pub(crate) fn generate(at_nanos: u64) -> Self {
        let (millis, sequence) = next_number(at_nanos / 1_000_000);
        let upper = millis << 16 | VERSION_7 << 12 | sequence >> 30;
        let lower = VARIANT << 62 | (sequence & LOW_30_BITS) << 32 | u64::from(PROCESS.tail(sequence));
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&upper.to_be_bytes());
        bytes[8..].copy_from_slice(&lower.to_be_bytes());
        Self(Form::Own(bytes))
    }

    /// Mistakes a UUID of another origin for one of this process once in 2^32.
    fn of_uuid(bytes: [u8; 16]) -> Self {
        let (upper, lower) = halves(bytes);
        let ours = upper >> 12 & 0xF == VERSION_7
            && lower >> 62 == VARIANT
            && lower as u32 == PROCESS.tail(sequence_of(upper, lower));
        Self(if ours { Form::Own(bytes) } else { Form::Uuid(bytes) })
    }

    /// The sequence number of an id that this process generated, below 2^42; `None` for any other id.
    /// An id of another origin may have a number too, so a look-up by number must compare the whole id.
    pub(crate) fn local_sequence(&self) -> Option<u64> {
        let Form::Own(bytes) = self.0 else { return None };
        let (upper, lower) = halves(bytes);
        Some(sequence_of(upper, lower))
    }

    /// The id's text, written into `buffer` unless the id is kept as text.
    pub(crate) fn text<'a>(&'a self, buffer: &'a mut [u8; UUID_TEXT_BYTES]) -> &'a str {
        match &self.0 {
            Form::Own(bytes) | Form::Uuid(bytes) => uuid::Uuid::from_bytes(*bytes).hyphenated().encode_lower(buffer),
            Form::Text(text) => text,
        }
    }
}

fn halves(bytes: [u8; 16]) -> (u64, u64) {
    let whole = u128::from_be_bytes(bytes);
    ((whole >> 64) as u64, whole as u64)
}

fn sequence_of(upper: u64, lower: u64) -> u64 {
    (upper & 0xFFF) << 30 | lower >> 32 & LOW_30_BITS
}

/// The bytes of a UUID in canonical form, which formats to the same text again.
fn canonical_uuid(text: &str) -> Option<[u8; 16]> {
    if text.len() != UUID_TEXT_BYTES || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return None;
    }
    // Of the forms that the parser accepts, only the hyphenated one has this length.
    uuid::Uuid::try_parse(text).ok().map(uuid::Uuid::into_bytes)
}

const VERSION_7: u64 = 7;
const VARIANT: u64 = 0b10;
const LOW_30_BITS: u64 = (1 << 30) - 1;

/// The counter has 42 bits. It starts in the lower half, so it does not wrap before 2^41 ids.
const COUNTER_MASK: u64 = (1 << 42) - 1;
/// Each thread takes this many numbers at once, so that threads rarely contend for the counter.
const BLOCK: u64 = 64;

/// The counter and the secret of all ids of this process.
struct Process {
    counter: AtomicU64,
    secret: u64,
}

static PROCESS: LazyLock<Process> = LazyLock::new(|| Process {
    // A multiple of the block size, so that no block crosses the end of the range.
    counter: AtomicU64::new(RandomState::new().hash_one("counter") & (COUNTER_MASK >> 1) & !(BLOCK - 1)),
    secret: RandomState::new().hash_one("secret"),
});

impl Process {
    /// The last 32 bits of the id with this number: MurmurHash3's mix of the number and the secret.
    fn tail(&self, sequence: u64) -> u32 {
        let mut mixed = sequence ^ self.secret;
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xFF51_AFD7_ED55_8CCD);
        mixed = (mixed ^ mixed >> 33).wrapping_mul(0xC4CE_B9FE_1A85_EC53);
        (mixed >> 32) as u32
    }
}

/// The rest of a thread's block of numbers, and the last millisecond that the thread has used.
#[derive(Clone, Copy)]
struct NumberBlock {
    next: u64,
    end: u64,
    millis: u64,
}

thread_local! {
    static NUMBERS: Cell<NumberBlock> = const { Cell::new(NumberBlock { next: 0, end: 0, millis: 0 }) };
}

/// The next pair of millisecond and number, greater than this thread's last one.
fn next_number(millis: u64) -> (u64, u64) {
    let mut numbers = NUMBERS.get();
    numbers.millis = numbers.millis.max(millis);
    if numbers.next == numbers.end {
        let start = PROCESS.counter.fetch_add(BLOCK, atomic::Ordering::Relaxed) & COUNTER_MASK;
        if start < numbers.next {
            // The counter has wrapped, so the millisecond advances to keep the ids ascending.
            numbers.millis += 1;
        }
        numbers.next = start;
        numbers.end = start + BLOCK;
    }
    let sequence = numbers.next;
    numbers.next += 1;
    NUMBERS.set(numbers);
    (numbers.millis, sequence)
}

impl Ord for EventId {
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            // Hyphens are at fixed positions, so bytes and texts have the same order.
            (Form::Own(left) | Form::Uuid(left), Form::Own(right) | Form::Uuid(right)) => left.cmp(right),
            _ => self.text(&mut [0; UUID_TEXT_BYTES]).cmp(other.text(&mut [0; UUID_TEXT_BYTES])),
        }
    }
}

impl PartialOrd for EventId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.text(&mut [0; UUID_TEXT_BYTES]))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EventId").field(&self.text(&mut [0; UUID_TEXT_BYTES])).finish()
    }
}
