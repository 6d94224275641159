//! The payload of an event: raw JSON, checked once. A publish checks its size against the broker's setting.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::ser::{CompactFormatter, Formatter};
use serde_json::value::RawValue;

use super::bounds::MAX_DEPTH;
use super::depth;
use super::invalid::{Invalid, Problem};

/// The payload of an event: JSON text that is parsed only on request.
///
/// Immutable and cheap to clone.
///
/// ```
/// use eventbroker::Payload;
///
/// let payload = Payload::from_json(r#" {"total": 12} "#)?;
/// assert_eq!(payload.as_str(), r#"{"total": 12}"#);
/// let parsed: std::collections::HashMap<String, u32> = payload.parse().expect("a map of numbers");
/// assert_eq!(parsed["total"], 12);
/// # Ok::<(), eventbroker::error::Invalid>(())
/// ```
// `None` is the JSON null, which needs no memory.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Payload(Option<Arc<str>>);

/// A payload does not decode into the requested type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the payload does not decode: {message}")]
pub struct DecodeError {
    message: String,
}

impl Payload {
    /// The deepest nesting of brackets; one open bracket is depth 1.
    pub const MAX_DEPTH: usize = MAX_DEPTH;

    /// The JSON null, the default payload of an event.
    #[must_use]
    pub const fn null() -> Self {
        Self(None)
    }

    /// Creates a payload from JSON text.
    ///
    /// White space around the value is dropped; everything else stays unchanged.
    ///
    /// # Errors
    /// The field `payload` is [`NotJson`](Problem::NotJson) (which includes bytes that are not UTF-8), or
    /// [`TooDeep`](Problem::TooDeep): nested more than [`Payload::MAX_DEPTH`] levels.
    pub fn from_json(json: impl AsRef<[u8]>) -> Result<Self, Invalid> {
        let text = std::str::from_utf8(json.as_ref()).map_err(|error| not_json(&error))?;
        let value: &RawValue = serde_json::from_str(text).map_err(|error| not_json(&error))?;
        Self::from_checked_json(value)
    }

    /// Creates a payload from JSON whose grammar has been checked. Checks only the depth.
    pub(crate) fn from_checked_json(value: &RawValue) -> Result<Self, Invalid> {
        match value.get() {
            "null" => Ok(Self::null()),
            text if depth::is_deeper_than(text, Self::MAX_DEPTH) => Err(too_deep()),
            text => Ok(Self(Some(text.into()))),
        }
    }

    /// Serializes a value as JSON.
    ///
    /// # Errors
    /// The field `payload` is [`TooDeep`](Problem::TooDeep) if the value exceeds [`Payload::MAX_DEPTH`] levels (it is
    /// not traversed further), or [`NotJson`](Problem::NotJson) if it has no JSON form, such as a map with lists as
    /// keys.
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<Self, Invalid> {
        let mut bytes = Vec::with_capacity(128);
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, DepthLimit::default());
        value.serialize(&mut serializer).map_err(|error| {
            // Writing to memory cannot fail, so `DepthLimit` is the only source of I/O errors.
            if error.is_io() { too_deep() } else { not_json(&error) }
        })?;
        let text = String::from_utf8(bytes).map_err(|error| not_json(&error))?;
        Ok(if text == "null" { Self::null() } else { Self(Some(text.into())) })
    }

    /// The JSON, as bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.as_str().as_bytes()
    }

    /// The JSON, as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or("null")
    }

    /// The length of the JSON, in bytes; 4 for null, so never 0.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "no JSON text is empty")]
    pub fn len(&self) -> usize {
        self.as_str().len()
    }

    /// Whether this is the JSON null.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.0.is_none()
    }

    /// Parses the payload. `T` may borrow from it.
    ///
    /// # Errors
    /// The JSON does not fit `T`.
    pub fn parse<'a, T: Deserialize<'a>>(&'a self) -> Result<T, DecodeError> {
        serde_json::from_str(self.as_str()).map_err(|error| DecodeError { message: error.to_string() })
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Payload").field(&format_args!("{}", self.as_str())).finish()
    }
}

fn not_json(error: &dyn fmt::Display) -> Invalid {
    Invalid::new("payload", Problem::NotJson(error.to_string()))
}

fn too_deep() -> Invalid {
    Invalid::new("payload", Problem::TooDeep { max: MAX_DEPTH })
}

/// Formats compact JSON, and fails as soon as the value is nested too deeply, before recursion overflows the stack.
#[derive(Default)]
struct DepthLimit {
    depth: usize,
}

impl DepthLimit {
    fn open(&mut self) -> io::Result<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(io::ErrorKind::InvalidData.into()) } else { Ok(()) }
    }
}

impl Formatter for DepthLimit {
    fn begin_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open()?;
        CompactFormatter.begin_array(writer)
    }

    fn end_array<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        CompactFormatter.end_array(writer)
    }

    fn begin_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.open()?;
        CompactFormatter.begin_object(writer)
    }

    fn end_object<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.depth -= 1;
        CompactFormatter.end_object(writer)
    }

    /// A raw JSON value inside the value is written in one piece, so its own depth is measured.
    fn write_raw_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        if depth::is_deeper_than(fragment, MAX_DEPTH - self.depth) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        CompactFormatter.write_raw_fragment(writer, fragment)
    }
}
