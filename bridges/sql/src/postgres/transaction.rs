//! Publishing inside a transaction of the program's own: the event is delivered if that is committed, and never if it is not.

use eventbroker::Event;
use eventbroker::provider::BackendError;
use postgres::Transaction;

use super::error::backend_error;
use super::rows::Batch;
use super::statements::Statements;
use super::{CHANNEL, mirror};
use crate::names::{InvalidName, TableName};

/// Writes events into the tables of a database that a provider serves, through any connection to the same database.
#[derive(Debug, Clone)]
pub struct Outbox {
    insert: String,
    table: String,
    channel: String,
}

impl Outbox {
    /// For the events' table of this name, as given to [`Postgres::table_name`](super::Postgres::table_name), which the connection's
    /// `search_path` must find.
    ///
    /// # Errors
    /// The name could not be a table's.
    pub fn new(table_name: &str) -> Result<Self, InvalidName> {
        let table = TableName::parse(table_name)?;
        let insert = Statements::new(&table).insert;
        Ok(Self { insert, table: table.as_str().to_owned(), channel: CHANNEL.to_owned() })
    }

    /// The channel of the notification that tells of the event, as given to [`Postgres::channel`](super::Postgres::channel).
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
}

/// [`Outbox::publish_in`] for the table `events` and the default channel.
///
/// # Errors
/// As there.
pub fn publish_in(transaction: &mut Transaction<'_>, event: &Event) -> Result<bool, BackendError> {
    let table = TableName::default();
    let insert = Statements::new(&table).insert;
    Outbox { insert, table: table.as_str().to_owned(), channel: CHANNEL.to_owned() }.publish_in(transaction, event)
}
