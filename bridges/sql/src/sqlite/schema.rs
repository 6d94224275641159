//! Makes the tables and brings them up to date.

use std::path::Path;
use std::thread;
use std::time::Instant;

use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::names::{InvalidName, TableName};
use crate::schema::{foreign, too_new};
use crate::settings::OpenError;
use crate::sqlite::statements::condition;
use crate::sqlite::transport::{BUSY_LIMIT, BUSY_PAUSE, boot_id, file_error};

/// The migrations, in order. The version of a schema is the number of migrations that were applied.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// The statements that make the tables, to run them by hand or to read them; [`Sqlite::open`](crate::Sqlite::open) runs them by itself.
///
/// # Errors
/// The name is not allowed for a table.
pub fn schema(table_name: &str) -> Result<String, InvalidName> {
    let table = TableName::parse(table_name)?;
    Ok(MIGRATIONS.iter().map(|text| migration(text, &table)).collect::<Vec<_>>().join("\n"))
}

/// The text of a migration for a table.
fn migration(text: &str, table: &TableName) -> String {
    text.replace("{events}", table.as_str()).replace("{matches}", &condition("NEW.type"))
}

/// Makes the tables or brings them up to date. Several processes may do so at the same time.
pub(crate) fn prepare(connection: &mut Connection, table: &TableName, path: &Path) -> Result<(), OpenError> {
    let file = |error: rusqlite::Error| file_error(path, &error);
    let mode = switch_to_wal(connection).map_err(file)?;
    if mode != "wal" {
        let reason =
            format!("its journal mode is {mode} and can't be WAL, without which no process could read during a write");
        return Err(file_error(path, &reason));
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(file)?;
    migrate(&transaction, table).map_err(file)?.map_err(OpenError::Schema)?;
    transaction.commit().map_err(file)
}

/// Switches the file to WAL, and returns the mode that it has then. Where two connections that switch could wait for each other, SQLite
/// reports a busy file without calling the busy handler; so the switch is tried again.
fn switch_to_wal(connection: &Connection) -> rusqlite::Result<String> {
    let deadline = Instant::now() + BUSY_LIMIT;
    loop {
        match connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)) {
            Err(error) if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && Instant::now() < deadline => {
                thread::sleep(BUSY_PAUSE);
            }
            mode => return mode,
        }
    }
}

/// Applies the migrations that are missing. The inner error says why the tables are refused.
fn migrate(transaction: &Transaction<'_>, table: &TableName) -> rusqlite::Result<Result<(), String>> {
    let events = table.as_str();
    transaction.execute_batch(&format!(
        "CREATE TABLE IF NOT EXISTS {events}_meta (name TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID"
    ))?;
    let read = format!("SELECT value FROM {events}_meta WHERE name = ?1");
    let version: i64 = transaction.query_row(&read, ["version"], |row| row.get(0)).optional()?.unwrap_or(0);
    let known = MIGRATIONS.len() as i64;
    if version > known {
        return Ok(Err(too_new(table, version, known)));
    }
    if version == 0 {
        let mut statement = transaction.prepare("SELECT name FROM pragma_table_info(?1)")?;
        let columns = statement.query_map([events], |row| row.get(0))?.collect::<rusqlite::Result<Vec<String>>>()?;
        if let Some(problem) = foreign(table, &columns) {
            return Ok(Err(problem));
        }
    }
    for text in &MIGRATIONS[version as usize..] {
        transaction.execute_batch(&migration(text, table))?;
    }
    let write = format!("INSERT INTO {events}_meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value");
    transaction.execute(&write, params!["version", known])?;
    let boot: Option<String> = transaction.query_row(&read, ["boot"], |row| row.get(0)).optional()?;
    if boot.as_deref() != Some(boot_id()) {
        // The clock of leases starts anew with each boot: the leases of an earlier boot have ended.
        transaction.execute(&write, params!["boot", boot_id()])?;
        transaction.execute_batch(&format!(
            "UPDATE {events}_deliveries SET leased_until = 0 WHERE state = 1;
             UPDATE {events}_subscriptions SET alive_until = 0 WHERE owner IS NOT NULL AND NOT durable;
             DELETE FROM {events}_instances;"
        ))?;
    }
    Ok(Ok(()))
}
