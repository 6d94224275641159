//! Publishes in a transaction of the program: the event is delivered if the transaction is committed, and never if it is rolled back.

use std::sync::LazyLock;

use eventbroker::Event;
use eventbroker::provider::BackendError;
use postgres::Transaction;

use crate::columns::{metadata_text, row_values, time_text};
use crate::names::{InvalidName, TableName};
use crate::postgres::statements::{Statements, insert_values, split_time};
use crate::postgres::transport::backend_error;
use crate::settings::Notifications;
use crate::value::SqlValue;

/// Writes events into the tables of a provider, through any connection to the same database.
#[derive(Debug, Clone)]
pub struct Outbox {
    insert: String,
    /// Inserts one event with values that every client can bind, and sends the notification.
    insert_one: String,
    table: String,
    channel: String,
}

impl Outbox {
    /// For the events' table of this name, as given to [`Postgres::table_name`](crate::Postgres::table_name). The connection's
    /// `search_path` must find the table.
    ///
    /// # Errors
    /// The name is not allowed for a table.
    pub fn new(table_name: &str) -> Result<Self, InvalidName> {
        TableName::parse(table_name).map(|table| Self::of(&table))
    }

    fn of(table: &TableName) -> Self {
        let Statements { insert_in: insert, insert_one, .. } = Statements::new(table);
        Self { insert, insert_one, table: table.as_str().to_owned(), channel: Notifications::default().channel }
    }

    /// The channel of the notification, as given to [`Postgres::channel`](crate::Postgres::channel).
    #[must_use]
    pub fn channel(mut self, channel: impl Into<String>) -> Self {
        self.channel = channel.into();
        self
    }

    /// Stores an event as a part of the transaction. True if the event is new, false if its id is known.
    ///
    /// The event is delivered as soon as the transaction is committed, to the subscriptions that the table has at this call. Local
    /// subscriptions do not receive it. The brokers that serve the tables detect the commit by themselves, also after a crash in between.
    /// The connection needs the rights of a publisher (see the [module](crate::postgres)), and it should not set `synchronous_commit` to
    /// off.
    ///
    /// ```no_run
    /// # use eventbroker::{Event, Source};
    /// # use eventbroker_sql::postgres::Outbox;
    /// let outbox = Outbox::new("events")?;
    /// let mut shop = postgres::Client::connect("postgres://shop@localhost/shop", postgres::NoTls)?;
    /// let mut transaction = shop.transaction()?;
    /// transaction.execute("UPDATE stock SET count = count - 1 WHERE id = 7", &[])?;
    /// outbox.publish_in(&mut transaction, &Event::builder(Source::Database, "shop.stock.update").build()?)?;
    /// transaction.commit()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`BackendError`] with PostgreSQL's message. After an error the transaction can only be rolled back.
    pub fn publish_in(&self, transaction: &mut Transaction<'_>, event: &Event) -> Result<bool, BackendError> {
        let values = insert_values(&[event], None);
        let values: Vec<_> = values.iter().map(|value| value.as_sql()).collect();
        let stored = transaction.query(&self.insert, &values);
        let is_new = !stored.map_err(|error| backend_error(&error))?.is_empty();
        if is_new {
            // PostgreSQL sends equal notifications of one transaction once.
            let notified = transaction.execute("SELECT pg_notify($1, $2)", &[&self.channel, &self.table]);
            notified.map_err(|error| backend_error(&error))?;
        }
        Ok(is_new)
    }

    /// A statement that does the same as [`publish_in`](Self::publish_in), for programs that reach the database through another client:
    /// its text with the parameters `$1` to `$16`, and their values in this order, whole numbers as `bigint` and texts as `text`. It
    /// returns one row, or none if the id is known.
    ///
    /// ```
    /// # use eventbroker::{Event, Source};
    /// # use eventbroker_sql::{SqlValue, postgres::Outbox};
    /// let outbox = Outbox::new("events")?;
    /// let event = Event::builder(Source::Database, "shop.stock.update").payload(&7).build()?;
    /// let (sql, values) = outbox.statement(&event);
    /// assert!(sql.contains("INSERT INTO events (id, source, type, payload,"));
    /// assert_eq!(values[3], SqlValue::Text("7".into()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn statement<'a>(&'a self, event: &'a Event) -> (&'a str, [SqlValue<'a>; 16]) {
        let (created, nanos) = split_time(event.created_at());
        let others = [
            time_text(created).into(),
            SqlValue::Integer(nanos.into()),
            metadata_text(event).map_or(SqlValue::Null, SqlValue::from),
            event.key().into(),
            Some(self.channel.as_str()).into(),
            Some(self.table.as_str()).into(),
        ];
        (&self.insert_one, row_values(event, others))
    }
}

/// [`Outbox::publish_in`] for the table `events` and the default channel.
///
/// # Errors
/// See [`Outbox::publish_in`].
pub fn publish_in(transaction: &mut Transaction<'_>, event: &Event) -> Result<bool, BackendError> {
    static EVENTS: LazyLock<Outbox> = LazyLock::new(|| Outbox::of(&TableName::default()));
    EVENTS.publish_in(transaction, event)
}
