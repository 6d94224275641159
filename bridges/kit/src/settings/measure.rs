//! The size of a value, and its bounds.

use std::fmt;
use std::time::Duration;

use super::value::span_text;

/// The size of a value, as its bounds compare it.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub enum Measure {
    /// A whole number.
    Whole(u64),
    /// A number.
    Real(f64),
    /// A duration.
    Span(Duration),
    /// The length of a text.
    Bytes(u64),
}

impl Measure {
    /// The complaint of a setter's check, if the value is out of the bounds.
    pub(crate) fn problem(self, (min, max): (Self, Self)) -> Option<String> {
        let shown = |it: Self| if let Self::Span(span) = it { format!("{span:?}") } else { it.to_string() };
        match self {
            it if min <= it && it <= max => None,
            Self::Bytes(length) => Some(format!("is {length} bytes long, {min} to {max} are allowed")),
            it if it < min => Some(format!("is {}, at least {} is required", shown(it), shown(min))),
            it => Some(format!("is {}, at most {} is allowed", shown(it), shown(max))),
        }
    }
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
