//! Makes the tables and brings them up to date.

mod role;

use std::time::Duration;

use postgres::Error;

use crate::names::{InvalidName, TableName};
use crate::postgres::statements::condition;
use crate::postgres::transport::Session;
use crate::schema::{foreign, too_new};
use role::{refused_right, refused_setting};

/// How long one statement of a migration may take, and its wait for another instance that migrates.
const MIGRATION_LIMIT: Duration = Duration::from_secs(60);
/// The migrations, in order. The version of a schema is the number of migrations that were applied.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// The statements that make the tables, to run them by hand or to read them; [`Postgres::open`](crate::Postgres::open) runs them by
/// itself. They belong in one transaction.
///
/// # Errors
/// The name is not allowed for a table.
pub fn schema(table_name: &str) -> Result<String, InvalidName> {
    let table = TableName::parse(table_name)?;
    let migrations = MIGRATIONS.iter().map(|text| migration(text, &table)).collect::<String>();
    let (events, version) = (table.as_str(), MIGRATIONS.len());
    Ok(format!("{}{migrations}INSERT INTO {events}_meta VALUES ('version', {version});\n", meta(&table)))
}

/// The text of a migration for a table.
fn migration(text: &str, table: &TableName) -> String {
    text.replace("{matches:n.type}", &condition("n.type")).replace("{events}", table.as_str())
}

fn meta(table: &TableName) -> String {
    format!("CREATE TABLE IF NOT EXISTS {}_meta (name text PRIMARY KEY, value bigint NOT NULL);\n", table.as_str())
}

/// Makes the tables or brings them up to date. The inner error says why the tables, or the role, are refused. Several instances may call
/// this at the same time. Tables that are up to date need no right to change them.
pub(crate) fn prepare(session: &mut Session, table: &TableName) -> Result<Result<(), String>, Error> {
    if let Some(problem) = refused_setting(session)? {
        return Ok(Err(problem));
    }
    if version(session, table)? != Some(MIGRATIONS.len() as i64) {
        let migrated = session.transaction_within(MIGRATION_LIMIT, |session| migrate(session, table))?;
        if migrated.is_err() {
            return Ok(migrated);
        }
    }
    Ok(refused_right(session, table, MIGRATIONS)?.map_or(Ok(()), Err))
}

/// The version of the tables. `None` if this program has not made any.
fn version(session: &mut Session, table: &TableName) -> Result<Option<i64>, Error> {
    let meta = format!("{}_meta", table.as_str());
    // A session learns of new tables when it locks a table, here the catalogue. Otherwise it would go by what it saw before a wait.
    let exists = session.query("SELECT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass($1))", &[&meta])?;
    if !exists.first().map_or(Ok(false), |row| row.try_get(0))? {
        return Ok(None);
    }
    let found = session.query(&format!("SELECT value FROM {meta} WHERE name = 'version'"), &[])?;
    found.first().map(|row| row.try_get(0)).transpose()
}

/// Migrates while no other instance migrates these tables: each statement behind the lock sees what the other one has committed.
fn migrate(session: &mut Session, table: &TableName) -> Result<Result<(), String>, Error> {
    // The number stands for `eventbroker`.
    const NUMBER: i32 = 1_702_257_262;
    session.query("SELECT pg_advisory_xact_lock($1, hashtext($2))", &[&NUMBER, &table.as_str()])?;
    let seen = version(session, table)?.unwrap_or(0);
    let known = MIGRATIONS.len() as i64;
    if seen > known {
        return Ok(Err(too_new(table, seen, known)));
    }
    if seen == 0 {
        let columns = "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";
        let columns = session.query(columns, &[&table.as_str()])?;
        let columns = columns.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
        if let Some(problem) = foreign(table, &columns) {
            return Ok(Err(problem));
        }
    }
    session.client.batch_execute(&meta(table))?;
    for text in &MIGRATIONS[seen as usize..] {
        session.client.batch_execute(&migration(text, table))?;
    }
    let write = format!(
        "INSERT INTO {}_meta VALUES ('version', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        table.as_str()
    );
    session.execute(&write, &[&known])?;
    Ok(Ok(()))
}
