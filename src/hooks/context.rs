//! The argument of a hook: the operation's row, data, result and user. Calling hooks is in `hooks.rs`.

use std::fmt;

use serde::Serialize;

use crate::event::{Invalid, Payload};

/// An operation on a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// A row is created.
    Create,
    /// A row is read.
    Read,
    /// A row is updated.
    Update,
    /// A row is deleted.
    Delete,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 4] = [Self::Create, Self::Read, Self::Update, Self::Delete];

    /// The name in event types: `create`, `read`, `update` or `delete`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Read => "read",
            Self::Update => "update",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The user of an operation. An empty field, or 0, means unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookUser {
    /// The user's number; 0 if unknown.
    pub id: i64,
    /// The user's name.
    pub name: String,
    /// The user's e-mail address.
    pub email: String,
    /// The session of the operation.
    pub session: String,
    /// The user's roles.
    pub roles: Vec<String>,
}

/// The context of one operation on one row, the argument of a hook.
///
/// ```
/// use eventbroker::hooks::{HookContext, HookUser};
///
/// let user = HookUser { id: 7, name: "Ada".into(), ..HookUser::default() };
/// let context = HookContext::new("shop", "orders").with_row_id(42).with_user(user).with_data(&["tea", "cake"]);
/// assert_eq!((context.table.as_str(), context.row_id.as_str()), ("orders", "42"));
/// assert_eq!(context.data().as_str(), r#"["tea","cake"]"#);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct HookContext {
    /// The schema; may be empty.
    pub schema: String,
    /// The entity, such as `orders`.
    pub entity: String,
    /// The table of the entity. Default: the entity's name.
    pub table: String,
    /// The row's identity as text; empty while the row has none.
    pub row_id: String,
    /// The user of the operation.
    pub user: HookUser,
    data: Content,
    result: Content,
}

/// A value as JSON, or the reason why it could not be serialized.
pub(super) type Content = Result<Payload, Invalid>;

impl HookContext {
    /// The context of an operation on a row of `entity` in `schema`.
    ///
    /// The table has the entity's name. All other fields are empty.
    pub fn new(schema: impl Into<String>, entity: impl Into<String>) -> Self {
        let entity = entity.into();
        Self {
            schema: schema.into(),
            table: entity.clone(),
            entity,
            row_id: String::new(),
            user: HookUser::default(),
            data: Ok(Payload::null()),
            result: Ok(Payload::null()),
        }
    }

    /// Sets the table, if its name is not the entity's.
    #[must_use]
    pub fn with_table(mut self, table: impl Into<String>) -> Self {
        self.table = table.into();
        self
    }

    /// Sets the row's identity: a number, a UUID, anything with a text form.
    #[must_use]
    pub fn with_row_id(mut self, row_id: impl fmt::Display) -> Self {
        self.row_id = row_id.to_string();
        self
    }

    /// Sets the user.
    #[must_use]
    pub fn with_user(mut self, user: HookUser) -> Self {
        self.user = user;
        self
    }

    /// Sets the data, as [`set_data`](Self::set_data) does.
    #[must_use]
    pub fn with_data<T: Serialize + ?Sized>(mut self, data: &T) -> Self {
        self.set_data(data);
        self
    }

    /// Sets the result, as [`set_result`](Self::set_result) does.
    #[must_use]
    pub fn with_result<T: Serialize + ?Sized>(mut self, result: &T) -> Self {
        self.set_result(result);
        self
    }

    /// Sets the data to store: the new row, or the columns that change.
    ///
    /// Before-hooks may replace the data. A value without a JSON form, or nested more than [`Payload::MAX_DEPTH`]
    /// levels, does not stop the operation: hooks see null, and the payload of the event reports the failure.
    pub fn set_data<T: Serialize + ?Sized>(&mut self, data: &T) {
        self.data = Payload::from_serialize(data);
    }

    /// Sets the result: the row as it is now, or the rows that were read.
    ///
    /// For values without a JSON form see [`set_data`](Self::set_data).
    pub fn set_result<T: Serialize + ?Sized>(&mut self, result: &T) {
        self.result = Payload::from_serialize(result);
    }

    /// The data to store; null if none is set.
    #[must_use]
    pub fn data(&self) -> &Payload {
        const NULL: &Payload = &Payload::null();
        self.data.as_ref().unwrap_or(NULL)
    }

    /// The result of the operation; null if none is set.
    #[must_use]
    pub fn result(&self) -> &Payload {
        const NULL: &Payload = &Payload::null();
        self.result.as_ref().unwrap_or(NULL)
    }

    pub(super) fn serialized_data(&self) -> Result<&Payload, Invalid> {
        self.data.as_ref().map_err(Clone::clone)
    }

    pub(super) fn serialized_result(&self) -> Result<&Payload, Invalid> {
        self.result.as_ref().map_err(Clone::clone)
    }
}
