//! How a value is read from text and written back, per type. A value is text wherever it comes from, so a file, a variable and
//! a `${…}` mean the same.

use std::fmt;
use std::time::Duration;

use eventbroker::{Mode, Overflow};
use jiff::fmt::friendly::{Designator, Spacing, SpanParser, SpanPrinter};
use serde_json::{Value, json};

use crate::config::{Confirm, KeepStatus, ProviderKind, Storage};

/// A text that is never shown: neither by `Debug`, nor in errors, nor by `eventbroker config show`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text to itself.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for whoever has to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(hidden(&self.0))
    }
}

fn hidden(text: &str) -> &'static str {
    if text.is_empty() { "" } else { "***" }
}

/// An address that may hold a password, which is never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Url(String);

impl Url {
    /// An address; it is not checked here but by whoever connects.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The whole address, for whoever connects.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The address without what stands before `@` (a name and a password, or a token) and without its parameters.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Several servers may be listed, each with its own password.
        for (position, server) in self.0.split(',').enumerate() {
            if position > 0 {
                f.write_str(",")?;
            }
            let (scheme, rest) = server.split_once("://").map_or(("", server), |(scheme, rest)| (scheme, rest));
            if !scheme.is_empty() {
                write!(f, "{scheme}://")?;
            }
            let (rest, parameters) = rest.split_once('?').map_or((rest, ""), |(rest, parameters)| (rest, parameters));
            match rest.rsplit_once('@') {
                Some((_, address)) => write!(f, "***@{address}")?,
                None => f.write_str(rest)?,
            }
            if !parameters.is_empty() {
                f.write_str("?***")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How large a value is, to be held against its bounds.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub(crate) enum Measure {
    Whole(u64),
    Real(f64),
    Span(Duration),
    Bytes(u64),
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(number) | Self::Bytes(number) => write!(f, "{number}"),
            Self::Real(number) => write!(f, "{number:?}"),
            Self::Span(span) => f.write_str(&span_text(*span)),
        }
    }
}

/// A field of the configuration.
pub(crate) trait Setting {
    /// Takes the value that the text says, or leaves everything as it is and returns false.
    fn read(&mut self, text: &str) -> bool;
    /// Takes the items of a list. Most settings are no lists.
    fn read_list(&mut self, _items: Vec<String>) -> bool {
        false
    }
    /// The value as text that `read` takes, without secrets.
    fn show(&self) -> String;
    /// What the text must be, in words: "a whole number".
    fn expected(&self) -> String;
    /// What is held against the bounds, if it has any.
    fn measure(&self) -> Option<Measure> {
        None
    }
    /// The type in JSON Schema, without bounds.
    fn schema(&self) -> Value;
}

impl Setting for bool {
    fn read(&mut self, text: &str) -> bool {
        *self = match text.to_ascii_lowercase().as_str() {
            "true" | "t" | "1" => true,
            "false" | "f" | "0" => false,
            _ => return false,
        };
        true
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn expected(&self) -> String {
        "true or false".to_owned()
    }
    fn schema(&self) -> Value {
        json!({ "type": "boolean" })
    }
}

macro_rules! whole_number {
    ($($type:ty),*) => {$(
        impl Setting for $type {
            fn read(&mut self, text: &str) -> bool {
                text.parse().map(|number| *self = number).is_ok()
            }
            fn show(&self) -> String {
                self.to_string()
            }
            fn expected(&self) -> String {
                "a whole number".to_owned()
            }
            fn measure(&self) -> Option<Measure> {
                Some(Measure::Whole(*self as u64))
            }
            fn schema(&self) -> Value {
                json!({ "type": "integer" })
            }
        }
    )*};
}

whole_number!(u16, u32, u64, usize);

impl Setting for f64 {
    fn read(&mut self, text: &str) -> bool {
        match text.parse::<Self>() {
            Ok(number) if number.is_finite() => *self = number,
            _ => return false,
        }
        true
    }
    fn show(&self) -> String {
        format!("{self:?}")
    }
    fn expected(&self) -> String {
        "a number".to_owned()
    }
    fn measure(&self) -> Option<Measure> {
        Some(Measure::Real(*self))
    }
    fn schema(&self) -> Value {
        json!({ "type": "number" })
    }
}

impl Setting for Duration {
    fn read(&mut self, text: &str) -> bool {
        if text == "0" {
            *self = Self::ZERO;
            return true;
        }
        SpanParser::new().parse_unsigned_duration(text).map(|span| *self = span).is_ok()
    }
    fn show(&self) -> String {
        span_text(*self)
    }
    fn expected(&self) -> String {
        "a duration with its unit (250ms, 1s, 1h30m)".to_owned()
    }
    fn measure(&self) -> Option<Measure> {
        Some(Measure::Span(*self))
    }
    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": r"^(0|\d.*[a-zµ]|.*\$\{.*)$" })
    }
}

/// A duration as people write it: `1h30m`, `250ms`.
fn span_text(span: Duration) -> String {
    let printer = SpanPrinter::new().designator(Designator::Compact).spacing(Spacing::None);
    printer.unsigned_duration_to_string(&span)
}

impl Setting for String {
    fn read(&mut self, text: &str) -> bool {
        text.clone_into(self);
        true
    }
    fn show(&self) -> String {
        self.clone()
    }
    fn expected(&self) -> String {
        "a text".to_owned()
    }
    fn measure(&self) -> Option<Measure> {
        Some(Measure::Bytes(self.len() as u64))
    }
    fn schema(&self) -> Value {
        // Numbers and the like are taken as they are written.
        json!({ "type": ["string", "number", "boolean"] })
    }
}

impl Setting for Secret {
    fn read(&mut self, text: &str) -> bool {
        self.0.read(text)
    }
    fn show(&self) -> String {
        hidden(&self.0).to_owned()
    }
    fn expected(&self) -> String {
        self.0.expected()
    }
    fn measure(&self) -> Option<Measure> {
        self.0.measure()
    }
    fn schema(&self) -> Value {
        self.0.schema()
    }
}

impl Setting for Url {
    fn read(&mut self, text: &str) -> bool {
        self.0.read(text)
    }
    fn show(&self) -> String {
        self.to_string()
    }
    fn expected(&self) -> String {
        "an address".to_owned()
    }
    fn measure(&self) -> Option<Measure> {
        self.0.measure()
    }
    fn schema(&self) -> Value {
        json!({ "type": "string" })
    }
}

/// An empty text is none.
impl<T: Setting + Default> Setting for Option<T> {
    fn read(&mut self, text: &str) -> bool {
        let mut value = T::default();
        if text.is_empty() {
            *self = None;
        } else if value.read(text) {
            *self = Some(value);
        } else {
            return false;
        }
        true
    }
    fn show(&self) -> String {
        self.as_ref().map(T::show).unwrap_or_default()
    }
    fn expected(&self) -> String {
        format!("{} or nothing", T::default().expected())
    }
    fn measure(&self) -> Option<Measure> {
        self.as_ref().and_then(T::measure)
    }
    fn schema(&self) -> Value {
        T::default().schema()
    }
}

/// As one text, the items are separated by commas.
impl Setting for Vec<String> {
    fn read(&mut self, text: &str) -> bool {
        self.read_list(text.split(',').map(|item| item.trim().to_owned()).collect())
    }
    fn read_list(&mut self, items: Vec<String>) -> bool {
        let good = !items.is_empty() && items.iter().all(|item| !item.is_empty());
        if good {
            *self = items;
        }
        good
    }
    fn show(&self) -> String {
        self.join(",")
    }
    fn expected(&self) -> String {
        "a list of texts, at least one".to_owned()
    }
    fn schema(&self) -> Value {
        json!({ "type": ["array", "string"], "items": { "type": "string" }, "minItems": 1 })
    }
}

/// Settings that are one of a few words, in any case of letters.
macro_rules! one_of {
    ($type:ty: $($word:literal = $variant:expr),*) => {
        impl Setting for $type {
            fn read(&mut self, text: &str) -> bool {
                *self = match text.to_ascii_lowercase().as_str() {
                    $($word => $variant,)*
                    _ => return false,
                };
                true
            }
            fn show(&self) -> String {
                let words = [$(($word, $variant)),*];
                words.iter().find(|(_, variant)| variant == self).map(|(word, _)| (*word).to_owned()).unwrap_or_default()
            }
            fn expected(&self) -> String {
                [$($word),*].join(" or ")
            }
            fn schema(&self) -> Value {
                json!({ "enum": [$($word),*] })
            }
        }
    };
}

one_of!(ProviderKind: "memory" = Self::Memory, "redis" = Self::Redis, "nats" = Self::Nats, "database" = Self::Database);
one_of!(Mode: "async" = Self::Async, "sync" = Self::Sync);
one_of!(KeepStatus: "full" = Self::Full, "failures" = Self::Failures);
one_of!(Confirm: "confirmed" = Self::Confirmed, "buffered" = Self::Buffered);
one_of!(Storage: "file" = Self::File, "memory" = Self::Memory);

impl Setting for Overflow {
    fn read(&mut self, text: &str) -> bool {
        let text = text.to_ascii_lowercase();
        *self = match text.as_str() {
            "reject" => Self::Reject,
            "drop_oldest" => Self::DropOldest,
            "drop_newest" => Self::DropNewest,
            _ => {
                let mut patience = Duration::ZERO;
                match text.strip_prefix("block ") {
                    Some(span) if patience.read(span.trim()) => Self::Block(patience),
                    _ => return false,
                }
            }
        };
        true
    }
    fn show(&self) -> String {
        match self {
            Self::Reject => "reject".to_owned(),
            Self::DropOldest => "drop_oldest".to_owned(),
            Self::DropNewest => "drop_newest".to_owned(),
            Self::Block(patience) => format!("block {}", span_text(*patience)),
        }
    }
    fn expected(&self) -> String {
        "reject or drop_oldest or drop_newest or block with a duration (block 100ms)".to_owned()
    }
    fn schema(&self) -> Value {
        json!({ "type": "string", "pattern": r"^(reject|drop_oldest|drop_newest|block \d.*|.*\$\{.*)$" })
    }
}
