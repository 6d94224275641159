//! The name of the table. It is the only part of a statement that is not bound but written into the text, so it is checked.

/// The name of the events' table, from which the names of the other tables follow: `events`, `events_deliveries`, `events_subscriptions`,
/// `events_instances`, `events_meta`. A lower-case letter or `_`, then lower-case letters, digits and `_`; at most 48 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableName(Box<str>);

/// A name that is not allowed for a table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "table_name: {:?} is not 1 to {} of a-z, 0-9 and _, with no digit first",
    .name.chars().take(64).collect::<String>(), TableName::MAX_BYTES
)]
pub struct InvalidName {
    name: String,
}

impl TableName {
    /// The longest name, in bytes.
    pub const MAX_BYTES: usize = 48;

    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidName`], which shows the name and the rule.
    pub fn parse(name: &str) -> Result<Self, InvalidName> {
        let letter = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
        let valid = name.len() <= Self::MAX_BYTES
            && name.bytes().next().is_some_and(letter)
            && name.bytes().all(|byte| letter(byte) || byte.is_ascii_digit());
        if valid { Ok(Self(name.into())) } else { Err(InvalidName { name: name.to_owned() }) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TableName {
    fn default() -> Self {
        Self("events".into())
    }
}
