//! The tables: how they are made and brought up to date.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::names::TableName;
use crate::sqlite::OpenError;
use crate::sqlite::statements::pattern;
use crate::sqlite::transport::clock;

/// The migrations, in order; the version of a schema is how many of them it has seen.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// All migrations as one text.
pub(crate) fn text(table: &TableName) -> String {
    MIGRATIONS.iter().map(|text| migration(text, table)).collect::<Vec<_>>().join("\n")
}

/// The text of a migration for a table.
fn migration(text: &str, table: &TableName) -> String {
    text.replace("{events}", table.as_str()).replace("{matches}", &pattern::condition("NEW.type"))
}

/// Makes the tables or brings them up to date. Several processes may do so at the same time.
pub(crate) fn prepare(connection: &mut Connection, table: &TableName, path: &Path) -> Result<(), OpenError> {
    let file = |error: rusqlite::Error| OpenError::file(path, &error);
    let mode: String = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(file)?;
    if mode != "wal" {
        let reason = format!(
            "its journal mode is {mode}, and can't be WAL, without which nobody could read while it is written"
        );
        return Err(OpenError::File { path: path.to_owned(), reason });
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(file)?;
    migrate(&transaction, table, path)?;
    transaction.commit().map_err(file)
}

fn migrate(transaction: &Transaction<'_>, table: &TableName, path: &Path) -> Result<(), OpenError> {
    let file = |error: rusqlite::Error| OpenError::file(path, &error);
    let events = table.as_str();
    transaction
        .execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS {events}_meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID"
        ))
        .map_err(file)?;
    let read = |name: &str| -> Result<Option<i64>, OpenError> {
        let query = format!("SELECT value FROM {events}_meta WHERE name = ?1");
        transaction.query_row(&query, [name], |row| row.get(0)).optional().map_err(file)
    };
    let version = read("version")?.unwrap_or(0);
    let known = MIGRATIONS.len() as i64;
    if version > known {
        return Err(OpenError::Schema(format!(
            "the tables of {events} have version {version}, this program knows {known}: it is older than the one that made them"
        )));
    }
    if version == 0 {
        refuse_foreign(transaction, table, path)?;
    }
    for text in &MIGRATIONS[version as usize..] {
        transaction.execute_batch(&migration(text, table)).map_err(file)?;
    }
    let write = format!("INSERT INTO {events}_meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value");
    transaction.execute(&write, params!["version", known]).map_err(file)?;
    // Leases count from the start of the machine: those of an earlier one have all ended.
    let boot: Option<String> = transaction
        .query_row(&format!("SELECT value FROM {events}_meta WHERE name = 'boot'"), [], |row| row.get(0))
        .optional()
        .map_err(file)?;
    if boot.as_deref() != Some(clock::boot()) {
        transaction.execute(&write, params!["boot", clock::boot()]).map_err(file)?;
        transaction
            .execute_batch(&format!(
                "UPDATE {events}_deliveries SET leased_until = 0 WHERE state = 1;
                 UPDATE {events}_subscriptions SET alive_until = 0 WHERE owner IS NOT NULL AND NOT durable;
                 DELETE FROM {events}_instances;"
            ))
            .map_err(file)?;
    }
    Ok(())
}

/// A table of that name that nobody here has made is left alone.
fn refuse_foreign(transaction: &Transaction<'_>, table: &TableName, path: &Path) -> Result<(), OpenError> {
    let columns = (|| {
        let mut statement = transaction.prepare("SELECT name FROM pragma_table_info(?1)")?;
        let names = statement.query_map([table.as_str()], |row| row.get::<_, String>(0))?;
        names.collect::<rusqlite::Result<Vec<String>>>()
    })();
    let columns = columns.map_err(|error| OpenError::file(path, &error))?;
    if columns.is_empty() {
        return Ok(());
    }
    let missing: Vec<&str> =
        ["position", "key", "origin"].into_iter().filter(|name| !columns.iter().any(|column| column == name)).collect();
    Err(OpenError::Schema(format!(
        "table_name: there is a table {} already that this program has not made; it lacks {}. Choose another name",
        table.as_str(),
        if missing.is_empty() { "a version".to_owned() } else { format!("the columns {}", missing.join(", ")) }
    )))
}
