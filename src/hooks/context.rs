//! What a hook is told: which operation, on what, with which data, by whom. Data only; who calls hooks is told in `hooks.rs`.

use std::fmt;

use serde::Serialize;

use crate::event::{Invalid, Payload};

/// What is done to a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// A row is made.
    Create,
    /// A row is read.
    Read,
    /// A row is changed.
    Update,
    /// A row is removed.
    Delete,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Self; 4] = [Self::Create, Self::Read, Self::Update, Self::Delete];

    /// The name in event types: `create`, `read`, `update`, `delete`.
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

/// Who does it. What is empty, or 0, is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookUser {
    /// The user's number; 0 if there is none.
    pub id: i64,
    /// The user's name.
    pub name: String,
    /// The user's e-mail address.
    pub email: String,
    /// The session in which it is done.
    pub session: String,
    /// What the user may be.
    pub roles: Vec<String>,
}

/// One operation on one row, as hooks see it.
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
    /// The table that holds it. Default: the entity's name.
    pub table: String,
    /// The row's identity as text; empty while there is none.
    pub row_id: String,
    /// Who does it.
    pub user: HookUser,
    data: Content,
    result: Content,
}

/// Something that was written as JSON, or why it could not be.
pub(super) type Content = Result<Payload, Invalid>;

impl HookContext {
    /// An operation on a row of `entity` in `schema`, whose table has the entity's name. Everything else is empty.
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

    /// The table, where its name is not the entity's.
    #[must_use]
    pub fn with_table(mut self, table: impl Into<String>) -> Self {
        self.table = table.into();
        self
    }

    /// The row's identity: a number, a UUID, whatever can be written as text.
    #[must_use]
    pub fn with_row_id(mut self, row_id: impl fmt::Display) -> Self {
        self.row_id = row_id.to_string();
        self
    }

    /// Who does it.
    #[must_use]
    pub fn with_user(mut self, user: HookUser) -> Self {
        self.user = user;
        self
    }

    /// What is to be stored, as [`set_data`](Self::set_data).
    #[must_use]
    pub fn with_data<T: Serialize + ?Sized>(mut self, data: &T) -> Self {
        self.set_data(data);
        self
    }

    /// What came of it, as [`set_result`](Self::set_result).
    #[must_use]
    pub fn with_result<T: Serialize + ?Sized>(mut self, result: &T) -> Self {
        self.set_result(result);
        self
    }

    /// Sets what is to be stored: the new row, or the columns that change. Before-hooks may replace it. A value that has no
    /// JSON form, or is nested more than [`Payload::MAX_DEPTH`] levels, does not stop the operation: hooks see null, and the
    /// event says that it could not be written.
    pub fn set_data<T: Serialize + ?Sized>(&mut self, data: &T) {
        self.data = Payload::from_serialize(data);
    }

    /// Sets what came of it: the row as it is now, or the rows that were read. For values without a JSON form see
    /// [`set_data`](Self::set_data).
    pub fn set_result<T: Serialize + ?Sized>(&mut self, result: &T) {
        self.result = Payload::from_serialize(result);
    }

    /// What is to be stored; null if there is nothing.
    #[must_use]
    pub fn data(&self) -> &Payload {
        const NULL: &Payload = &Payload::null();
        self.data.as_ref().unwrap_or(NULL)
    }

    /// What came of it; null if there is nothing, and before it is done.
    #[must_use]
    pub fn result(&self) -> &Payload {
        const NULL: &Payload = &Payload::null();
        self.result.as_ref().unwrap_or(NULL)
    }

    pub(super) fn written_data(&self) -> Result<&Payload, Invalid> {
        self.data.as_ref().map_err(Clone::clone)
    }

    pub(super) fn written_result(&self) -> Result<&Payload, Invalid> {
        self.result.as_ref().map_err(Clone::clone)
    }
}
