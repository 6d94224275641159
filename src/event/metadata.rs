//! The metadata of an event: a few named JSON values, bounded in number, depth and size.

use std::io;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::bounds::{MAX_DEPTH, MAX_TEXT_BYTES};
use super::depth;
use super::invalid::{Invalid, Problem};

/// The most entries.
pub(super) const MAX_ENTRIES: usize = 64;
/// The largest size of all entries as JSON, in bytes.
pub(super) const MAX_BYTES: usize = 64 * 1024;

/// Checked metadata entries.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Metadata {
    entries: Map<String, Value>,
    /// The size of the entries as JSON, each with the comma or bracket after it.
    bytes: usize,
}

impl Metadata {
    pub(super) fn entries(&self) -> &Map<String, Value> {
        &self.entries
    }

    /// Adds an entry, or replaces the one of that name. A refused entry changes nothing.
    pub(super) fn insert(&mut self, key: String, value: Value) -> Result<(), Invalid> {
        match self.bytes_with(&key, &value) {
            Ok(bytes) => {
                self.bytes = bytes;
                self.entries.insert(key, value);
                Ok(())
            }
            Err(problem) => {
                drop_iteratively(value);
                Err(Invalid::new("metadata", problem))
            }
        }
    }

    /// The size of all entries, this one included.
    fn bytes_with(&self, key: &str, value: &Value) -> Result<usize, Problem> {
        if key.is_empty() {
            return Err(Problem::OutOfBounds("has an entry without a name".to_owned()));
        }
        if key.len() > MAX_TEXT_BYTES {
            let actual = key.len();
            return Err(Problem::OutOfBounds(format!(
                "has an entry whose name is {actual} bytes long, at most {MAX_TEXT_BYTES} are allowed"
            )));
        }
        // Checked before the size, which is measured recursively.
        if is_deeper_than(value, MAX_DEPTH) {
            return Err(Problem::TooDeep { max: MAX_DEPTH });
        }
        let replaced = self.entries.get(key);
        let entries = self.entries.len() + usize::from(replaced.is_none());
        if entries > MAX_ENTRIES {
            return Err(Problem::TooMany { what: "entries", max: MAX_ENTRIES, actual: entries });
        }
        let freed = replaced.map_or(0, |old| encoded_len(key, old));
        let bytes = self.bytes - freed + encoded_len(key, value);
        let with_first_bracket = bytes + 1;
        if with_first_bracket > MAX_BYTES {
            return Err(Problem::TooLong { max: MAX_BYTES, actual: with_first_bracket });
        }
        Ok(bytes)
    }
}

/// Parses a JSON object into unchecked entries. Checks the depth first, because parsing is recursive.
pub(crate) fn parse_metadata(json: &RawValue) -> Result<Map<String, Value>, Invalid> {
    if depth::is_deeper_than(json.get(), 1 + MAX_DEPTH) {
        return Err(Invalid::new("metadata", Problem::TooDeep { max: MAX_DEPTH }));
    }
    serde_json::from_str(json.get()).map_err(|error| Invalid::new("metadata", Problem::NotJson(error.to_string())))
}

/// Whether a value is nested more than `max` levels deep. Works level by level: recursion on a deep value would
/// overflow the stack.
fn is_deeper_than(value: &Value, max: usize) -> bool {
    let mut level: Vec<&Value> = Vec::new();
    level.extend(Some(value).filter(|value| is_nested(value)));
    for _ in 0..max {
        if level.is_empty() {
            return false;
        }
        let mut below = Vec::new();
        for value in level {
            match value {
                Value::Array(items) => below.extend(items.iter().filter(|item| is_nested(item))),
                Value::Object(fields) => below.extend(fields.values().filter(|field| is_nested(field))),
                _ => {}
            }
        }
        level = below;
    }
    !level.is_empty()
}

fn is_nested(value: &Value) -> bool {
    matches!(value, Value::Array(_) | Value::Object(_))
}

/// Drops a value of any depth without recursion, which its own destructor would use.
fn drop_iteratively(value: Value) {
    let mut pending = vec![value];
    while let Some(value) = pending.pop() {
        match value {
            Value::Array(items) => pending.extend(items),
            Value::Object(fields) => pending.extend(fields.into_iter().map(|(_, field)| field)),
            _ => {}
        }
    }
}

/// The length of `"key":value`, and one byte for the comma or bracket after it.
fn encoded_len(key: &str, value: &Value) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    let mut count = Count(2);
    serde_json::to_writer(&mut count, key).expect("a text can always be written");
    serde_json::to_writer(&mut count, value).expect("a JSON value can always be written");
    count.0
}
