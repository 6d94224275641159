//! Publishes in a transaction of the program: the event is delivered if the transaction is committed, and never if it is rolled back.

use std::sync::LazyLock;

use eventbroker::Event;
use eventbroker::provider::BackendError;
use rusqlite::{Transaction, params_from_iter};

use crate::names::{InvalidName, TableName};
use crate::sqlite::statements::{Statements, execute, values};
use crate::sqlite::transport::backend_error;
use crate::value::SqlValue;

/// Writes events into the tables of a provider, through any connection to the same file.
#[derive(Debug, Clone)]
pub struct Outbox {
    insert: String,
}

impl Outbox {
    /// For the events' table of this name, as given to [`Sqlite::table_name`](crate::Sqlite::table_name).
    ///
    /// # Errors
    /// The name is not allowed for a table.
    pub fn new(table_name: &str) -> Result<Self, InvalidName> {
        TableName::parse(table_name).map(|table| Self::of(&table))
    }

    fn of(table: &TableName) -> Self {
        Self { insert: Statements::new(table).insert }
    }

    /// Stores an event as a part of the transaction. True if the event is new, false if its id is known.
    ///
    /// The event is delivered as soon as the transaction is committed, to the subscriptions that the table has at this call. Local
    /// subscriptions do not receive it. The broker that serves the file detects the commit by itself, also after a crash in between.
    ///
    /// ```no_run
    /// # use eventbroker::{Event, Source};
    /// # use eventbroker_sql::sqlite::Outbox;
    /// let outbox = Outbox::new("events")?;
    /// let mut shop = rusqlite::Connection::open("events.db")?;
    /// let transaction = shop.transaction()?;
    /// transaction.execute("UPDATE stock SET count = count - 1 WHERE id = 7", [])?;
    /// outbox.publish_in(&transaction, &Event::builder(Source::Database, "shop.stock.update").build()?)?;
    /// transaction.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`BackendError`] with SQLite's message. SQLite decides whether the transaction can go on.
    pub fn publish_in(&self, transaction: &Transaction<'_>, event: &Event) -> Result<bool, BackendError> {
        let inserted = execute(transaction, &self.insert, params_from_iter(values(event, None)));
        inserted.map(|rows| rows > 0).map_err(|error| backend_error(&error))
    }

    /// The statement that [`publish_in`](Self::publish_in) executes, for programs that reach the file through another client than
    /// rusqlite: its text with the parameters `?1` to `?14`, and their values in this order. It changes one row, or none if the id is
    /// known.
    ///
    /// ```
    /// # use eventbroker::{Event, Source};
    /// # use eventbroker_sql::{SqlValue, sqlite::Outbox};
    /// let outbox = Outbox::new("events")?;
    /// let event = Event::builder(Source::Database, "shop.stock.update").payload(&7).build()?;
    /// let (sql, values) = outbox.statement(&event);
    /// assert!(sql.starts_with("INSERT INTO events (id, source, type, payload,"));
    /// assert_eq!(values[3], SqlValue::Text("7".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn statement<'a>(&'a self, event: &'a Event) -> (&'a str, [SqlValue<'a>; 14]) {
        (&self.insert, values(event, None))
    }
}

/// [`Outbox::publish_in`] for the table `events`.
///
/// # Errors
/// See [`Outbox::publish_in`].
pub fn publish_in(transaction: &Transaction<'_>, event: &Event) -> Result<bool, BackendError> {
    static EVENTS: LazyLock<Outbox> = LazyLock::new(|| Outbox::of(&TableName::default()));
    EVENTS.publish_in(transaction, event)
}
