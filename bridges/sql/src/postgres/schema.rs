//! The tables: how they are made and brought up to date.

use postgres::Error;

use crate::names::TableName;
use crate::postgres::statements::pattern;
use crate::postgres::transport::link::{Session, TIMEOUTS};

/// The migrations, in order; the version of a schema is how many of them it has seen.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// What stands in the way of the tables, in words.
type Problem = String;

/// The text of a migration for a table.
fn migration(text: &str, table: &TableName) -> String {
    text.replace("{matches:n.type}", &pattern::condition("n.type")).replace("{events}", table.as_str())
}

fn meta(table: &TableName) -> String {
    format!("CREATE TABLE IF NOT EXISTS {}_meta (name text PRIMARY KEY, value bigint NOT NULL);\n", table.as_str())
}

/// All statements that make the tables.
pub(crate) fn text(table: &TableName) -> String {
    let migrations = MIGRATIONS.iter().map(|text| migration(text, table)).collect::<String>();
    let (events, version) = (table.as_str(), MIGRATIONS.len());
    format!("{}{migrations}INSERT INTO {events}_meta VALUES ('version', {version});\n", meta(table))
}

/// Makes the tables or brings them up to date. Several instances may do so at the same time. If they are as they should be, no right to
/// change them is needed.
pub(crate) fn prepare(session: &mut Session, table: &TableName) -> Result<Result<(), Problem>, Error> {
    let encoding: String = session.client.query_one("SHOW server_encoding", &[])?.try_get(0)?;
    if encoding != "UTF8" {
        return Ok(Err(format!("the database has the encoding {encoding}; UTF8 is required")));
    }
    match version(session, table)? {
        Some(version) if version == MIGRATIONS.len() as i64 => Ok(Ok(())),
        _ => alone(session, table, |session| session.transaction(|session| migrate(session, table))),
    }
}

/// Does something while no other instance does the same for this table. The transaction begins when the lock is held: an earlier one
/// might not see tables that were made while it waited.
fn alone<T>(
    session: &mut Session,
    table: &TableName,
    work: impl FnOnce(&mut Session) -> Result<T, Error>,
) -> Result<T, Error> {
    // The number stands for `eventbroker`.
    const NUMBER: i32 = 1_702_257_262;
    session.client.batch_execute("SET lock_timeout = '60s'; SET statement_timeout = '60s'")?;
    session.client.execute("SELECT pg_advisory_lock($1, hashtext($2))", &[&NUMBER, &table.as_str()])?;
    let result = work(session)?;
    session.client.execute("SELECT pg_advisory_unlock($1, hashtext($2))", &[&NUMBER, &table.as_str()])?;
    session.client.batch_execute(TIMEOUTS)?;
    Ok(result)
}

/// The version of the tables. Nothing if there are none that we have made.
fn version(session: &mut Session, table: &TableName) -> Result<Option<i64>, Error> {
    let meta = format!("{}_meta", table.as_str());
    let is_there: bool = session.client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&meta])?.try_get(0)?;
    if !is_there {
        return Ok(None);
    }
    let found = session.client.query_opt(&format!("SELECT value FROM {meta} WHERE name = 'version'"), &[])?;
    found.map(|row| row.try_get(0)).transpose()
}

fn migrate(session: &mut Session, table: &TableName) -> Result<Result<(), Problem>, Error> {
    let events = table.as_str();
    let seen = version(session, table)?.unwrap_or(0);
    let known = MIGRATIONS.len() as i64;
    if seen > known {
        return Ok(Err(format!(
            "the tables of {events} have version {seen}, this program knows {known}: it is older than the one that made them"
        )));
    }
    if let (0, Some(problem)) = (seen, foreign(session, table)?) {
        return Ok(Err(problem));
    }
    session.client.batch_execute(&meta(table))?;
    for text in &MIGRATIONS[seen as usize..] {
        session.client.batch_execute(&migration(text, table))?;
    }
    let write = format!(
        "INSERT INTO {events}_meta VALUES ('version', $1) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
    );
    session.client.execute(&write, &[&known])?;
    Ok(Ok(()))
}

/// A table of that name that nobody here has made is left alone.
fn foreign(session: &mut Session, table: &TableName) -> Result<Option<Problem>, Error> {
    let query =
        "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";
    let columns = session.client.query(query, &[&table.as_str()])?;
    if columns.is_empty() {
        return Ok(None);
    }
    let columns = columns.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    let missing: Vec<&str> =
        ["position", "key", "origin"].into_iter().filter(|name| !columns.iter().any(|column| column == name)).collect();
    Ok(Some(format!(
        "table_name: there is a table {} already that this program has not made; it lacks {}. Choose another name",
        table.as_str(),
        if missing.is_empty() { "a version".to_owned() } else { format!("the columns {}", missing.join(", ")) }
    )))
}
