//! The text of a value, read and written per type. A value is text wherever it comes from, so a file, a variable and a `${…}` mean
//! the same.

use std::path::PathBuf;
use std::time::Duration;

use eventbroker::{Confirm, Mode, Overflow};
use jiff::fmt::friendly::{Designator, Spacing, SpanParser, SpanPrinter};
use serde_json::{Value, json};

use super::{Measure, Secret, Url};

/// A type that a setting may have.
pub trait Setting {
    /// Takes the value of the text, or leaves everything as it is and returns false.
    fn read(&mut self, text: &str) -> bool;
    /// Takes the items of a list. Most settings are no lists.
    fn read_list(&mut self, _items: Vec<String>) -> bool {
        false
    }
    /// The value as text that `read` takes, without secrets.
    fn show(&self) -> String;
    /// The description of a good text: "a whole number".
    fn expected(&self) -> String;
    /// The size, which the bounds compare.
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
pub(super) fn span_text(span: Duration) -> String {
    let printer = SpanPrinter::new().designator(Designator::Compact).spacing(Spacing::None);
    printer.unsigned_duration_to_string(&span)
}

macro_rules! text {
    ($type:ty: $expected:literal, $kinds:expr, |$it:ident| $bytes:expr, $shown:expr) => {
        impl Setting for $type {
            fn read(&mut self, text: &str) -> bool {
                *self = Self::from(text);
                true
            }
            fn show(&self) -> String {
                let $it = self;
                $shown
            }
            fn expected(&self) -> String {
                $expected.to_owned()
            }
            fn measure(&self) -> Option<Measure> {
                let $it = self;
                Some(Measure::Bytes($bytes.len() as u64))
            }
            fn schema(&self) -> Value {
                json!({ "type": $kinds })
            }
        }
    };
}

/// Numbers and the like are taken as they are written.
const SCALAR: [&str; 3] = ["string", "number", "boolean"];

text!(String: "a text", SCALAR, |it| it, it.clone());
text!(PathBuf: "a text", SCALAR, |it| it.as_os_str(), it.display().to_string());
text!(Secret: "a text", SCALAR, |it| it.expose(), it.to_string());
text!(Url: "an address", "string", |it| it.expose(), it.to_string());

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

crate::words!(Mode: "async" = Self::Async, "sync" = Self::Sync);
crate::words!(Confirm: "confirmed" = Self::Confirmed, "buffered" = Self::Buffered);

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
