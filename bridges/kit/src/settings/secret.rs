//! Texts that hold a secret, and never show it.

use std::fmt;

/// A text that is never shown: neither by `Debug`, nor in errors, nor by `eventbroker config show`.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// A secret text; an empty one is none.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, to send it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The text, to send it, or nothing if it is empty.
    pub fn given(&self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.0.clone())
    }
}

/// Hides the text, but shows whether there is one.
impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "" } else { "***" })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

/// An address that may hold a password, which is never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Url(String);

impl Url {
    /// An address. Connecting checks it, not this.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The whole address, to connect.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no address.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The address without a login (the part before `@`) and without parameters.
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

impl<T: Into<String>> From<T> for Url {
    fn from(text: T) -> Self {
        Self::new(text)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
