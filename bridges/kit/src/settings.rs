//! The declaration of settings: each setting is written once, and everything else follows from it.
//!
//! [`settings!`](crate::settings!) makes a struct with a field per setting, its default, its setters and the table of its [keys](Key).
//! The crate of the configuration reads that table: for files, variables, the template, the JSON Schema and `config show`.

mod declare;
mod key;
mod measure;
mod secret;
mod value;

use std::time::Duration;

pub use key::Key;
pub use measure::Measure;
pub use secret::{Secret, Url};
#[doc(hidden)]
pub use serde_json::Value;
pub use value::Setting;

/// A struct that [`settings!`](crate::settings!) has made.
pub trait Settings: Clone + 'static {
    /// A key for each setting, in the order of the declaration.
    fn keys() -> Vec<Key<Self>>;

    /// Checks each setting against its bounds.
    ///
    /// # Errors
    /// The first setting that is out of its bounds, with its name, its value and the bound.
    fn check_bounds(&self) -> Result<(), String> {
        let mut copy = self.clone();
        Self::keys().iter().try_for_each(|key| key.check(&mut copy))
    }
}

/// Checks a bound that depends on other settings.
///
/// # Errors
/// The text names the setting, its value and the bound.
pub fn at_least(name: &str, is: Duration, least: Duration) -> Result<(), String> {
    if is >= least { Ok(()) } else { Err(format!("{name}: is {is:?}, at least {least:?} is required")) }
}

/// The default of a setting whose declaration writes it as text.
#[doc(hidden)]
pub fn from_text<T: Setting + Default>(text: &str) -> T {
    let mut value = T::default();
    let is_read = value.read(text);
    debug_assert!(is_read, "the default {text:?} is not {}", value.expected());
    value
}

/// The JSON Schema of a setting that is one of these words. A word `true` or `false` may stand without quotes.
#[doc(hidden)]
pub fn one_of(words: &[&str]) -> Value {
    let plain = words.iter().filter_map(|word| word.parse::<bool>().ok()).map(Value::from);
    let words: Vec<Value> = words.iter().map(|word| Value::from(*word)).chain(plain).collect();
    serde_json::json!({ "enum": words })
}

/// The statuses that a back end records of events, beside those that its streams show.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Status {
    /// Failures, retries, and the time at which each subscription handled an event: a record per event.
    Full,
    /// Failures, and the number of retries.
    #[default]
    Failures,
}

crate::words!(Status: "full" = Self::Full, "failures" = Self::Failures);
