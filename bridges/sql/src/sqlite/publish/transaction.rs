//! Publishing inside a transaction of the program's own: the event is delivered if that is committed, and never if it is not.

use eventbroker::Event;
use rusqlite::Transaction;

use crate::names::{InvalidName, TableName};
use crate::sqlite::statements::Statements;
use crate::sqlite::statements::rows;
use crate::sqlite::transport::connection::backend_error;
use crate::value::SqlValue;
use eventbroker::provider::BackendError;

/// Writes events into the tables of a database that a provider serves, through any connection to the same file.
#[derive(Debug, Clone)]
pub struct Outbox {
    insert: String,
}

impl Outbox {
    /// For the events' table of this name, as given to [`Sqlite::table_name`](crate::sqlite::Sqlite::table_name).
    ///
    /// # Errors
    /// The name could not be a table's.
    pub fn new(table_name: &str) -> Result<Self, InvalidName> {
        Ok(Self { insert: Statements::new(&TableName::parse(table_name)?).insert })
    }

    /// Stores an event as a part of the transaction. True if it is new, false if its id is known.
    ///
    /// It is delivered as soon as the transaction is committed, to the subscriptions that the table knew at this call; local
    /// subscriptions do not receive it. The broker that serves the file notices by itself, also after a crash in between.
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
    /// [`BackendError`] as SQLite answers; whether the transaction can go on is SQLite's to say.
    pub fn publish_in(&self, transaction: &Transaction<'_>, event: &Event) -> Result<bool, BackendError> {
        transaction
            .prepare_cached(&self.insert)
            .and_then(|mut insert| rows::insert(&mut insert, event, None))
            .map_err(|error| backend_error(&error))
    }

    /// What [`publish_in`](Self::publish_in) executes, for those who reach the file by another client than rusqlite: the statement
    /// with the parameters `?1` to `?14`, and their values in this order. It changes one row, or none if the id is known.
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
        (&self.insert, rows::values(event, None))
    }
}

/// [`Outbox::publish_in`] for the table `events`.
///
/// # Errors
/// As there.
pub fn publish_in(transaction: &Transaction<'_>, event: &Event) -> Result<bool, BackendError> {
    let insert = Statements::new(&TableName::default()).insert;
    Outbox { insert }.publish_in(transaction, event)
}
