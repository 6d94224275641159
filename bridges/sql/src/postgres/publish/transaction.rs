//! Publishing inside a transaction of the program's own: the event is delivered if that is committed, and never if it is not.

use eventbroker::Event;
use eventbroker::provider::BackendError;
use postgres::Transaction;

use crate::columns::{metadata_text, time_text};
use crate::names::{InvalidName, TableName};
use crate::postgres::CHANNEL;
use crate::postgres::publish::mirror;
use crate::postgres::statements::Statements;
use crate::postgres::statements::rows::{Batch, split_time};
use crate::postgres::transport::error::backend_error;
use crate::value::SqlValue;

/// Writes events into the tables of a database that a provider serves, through any connection to the same database.
#[derive(Debug, Clone)]
pub struct Outbox {
    insert: String,
    /// The same for one event, as values that every client can bind, with the notification.
    statement: String,
    table: String,
    channel: String,
}

impl Outbox {
    /// For the events' table of this name, as given to [`Postgres::table_name`](crate::postgres::Postgres::table_name), which the connection's
    /// `search_path` must find.
    ///
    /// # Errors
    /// The name could not be a table's.
    pub fn new(table_name: &str) -> Result<Self, InvalidName> {
        TableName::parse(table_name).map(|table| Self::of(&table))
    }

    fn of(table: &TableName) -> Self {
        let Statements { insert, insert_one, .. } = Statements::new(table);
        Self { insert, statement: insert_one, table: table.as_str().to_owned(), channel: CHANNEL.to_owned() }
    }

    /// The channel of the notification that tells of the event, as given to [`Postgres::channel`](crate::postgres::Postgres::channel).
    #[must_use]
    pub fn channel(mut self, channel: impl Into<String>) -> Self {
        self.channel = channel.into();
        self
    }

    /// Stores an event as a part of the transaction. True if it is new, false if its id is known.
    ///
    /// It is delivered as soon as the transaction is committed, to the subscriptions that the table knew at this call; local
    /// subscriptions do not receive it. The brokers that serve the tables notice by themselves, also after a crash in between. The
    /// connection needs the rights of a publisher (see the [module](super)), and it should not set `synchronous_commit` to off.
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
    /// [`BackendError`] as PostgreSQL answers, after which the transaction can only be rolled back.
    pub fn publish_in(&self, transaction: &mut Transaction<'_>, event: &Event) -> Result<bool, BackendError> {
        let mut batch = Batch::default();
        batch.push(event);
        let stored = transaction.query(&self.insert, &mirror::values(&batch, &None));
        let is_new = !stored.map_err(|error| backend_error(&error))?.is_empty();
        if is_new {
            // One notification for all events of the transaction: PostgreSQL sends equal ones once.
            let told = transaction.execute("SELECT pg_notify($1, $2)", &[&self.channel, &self.table]);
            told.map_err(|error| backend_error(&error))?;
        }
        Ok(is_new)
    }

    /// What does the same as [`publish_in`](Self::publish_in), for those who reach the database by another client: the statement with
    /// the parameters `$1` to `$16`, and their values in this order, whole numbers as `bigint` and texts as `text`. It returns one row,
    /// or none if the id is known.
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
        let values = [
            event.id().to_string().into(),
            Some(event.source().as_str()).into(),
            Some(event.event_type().as_str()).into(),
            (!event.payload().is_null()).then(|| event.payload().as_str()).into(),
            event.user_id().map_or(SqlValue::Null, SqlValue::Integer),
            event.session_id().into(),
            event.instance_id().into(),
            event.schema().into(),
            event.entity().into(),
            event.operation().into(),
            time_text(created).into(),
            SqlValue::Integer(nanos.into()),
            metadata_text(event).map_or(SqlValue::Null, SqlValue::from),
            event.key().into(),
            Some(self.channel.as_str()).into(),
            Some(self.table.as_str()).into(),
        ];
        (&self.statement, values)
    }
}

/// [`Outbox::publish_in`] for the table `events` and the default channel.
///
/// # Errors
/// As there.
pub fn publish_in(transaction: &mut Transaction<'_>, event: &Event) -> Result<bool, BackendError> {
    Outbox::of(&TableName::default()).publish_in(transaction, event)
}
