//! The tables: how they are made and brought up to date, and every statement that is used on them, with the table's name in it.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{OpenError, clock, pattern};
use crate::names::TableName;

/// The migrations, in order; the version of a schema is how many of them it has seen.
const MIGRATIONS: &[&str] = &[include_str!("schema.sql")];

/// The columns that a select of an event names, in the order in which `rows` reads them.
macro_rules! event_columns {
    () => {
        "e.id, e.source, e.type, e.payload, e.user_id, e.session_id, e.instance_id, e.schema, e.entity, e.operation, \
         e.created_at, e.metadata, e.key"
    };
}

/// The text of a migration for a table.
pub(super) fn migration(text: &str, table: &TableName) -> String {
    text.replace("{events}", table.as_str()).replace("{matches}", &pattern::condition("NEW.type"))
}

/// Makes the tables or brings them up to date. Several processes may do so at the same time.
pub(super) fn prepare(connection: &mut Connection, table: &TableName, path: &Path) -> Result<(), OpenError> {
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
                 UPDATE {events}_subscriptions SET alive_until = 0 WHERE owner IS NOT NULL;"
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

/// The statements, with the name of the table in them. What they do is told where they are used.
#[derive(Debug)]
pub(super) struct Statements {
    pub(super) insert: String,
    pub(super) by_id: String,
    pub(super) select: String,
    pub(super) ready: String,
    pub(super) claim: String,
    pub(super) lease: String,
    pub(super) begin: String,
    pub(super) rescue: String,
    pub(super) tokens: String,
    pub(super) finish: String,
    pub(super) unreadable: String,
    pub(super) release: String,
    pub(super) has_token: String,
    pub(super) mark: String,
    pub(super) unmark: String,
    pub(super) extend: String,
    pub(super) complete: String,
    pub(super) is_open: String,
    pub(super) refresh: String,
    pub(super) subscription: String,
    pub(super) subscribe: String,
    pub(super) unsubscribe: String,
    pub(super) forget_deliveries: String,
    pub(super) alive: String,
    pub(super) gone: String,
    pub(super) own: String,
    pub(super) tell: String,
    pub(super) cover: String,
    pub(super) delete_deliveries: String,
    pub(super) delete: String,
    pub(super) counts: String,
    pub(super) expired: String,
}

impl Statements {
    pub(super) fn new(table: &TableName) -> Self {
        let fill = |text: &str| text.replace("{events}", table.as_str());
        Self {
            insert: fill(
                "INSERT INTO {events} (id, source, type, payload, user_id, session_id, instance_id, schema, entity, \
                 operation, created_at, metadata, key, origin) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14) ON CONFLICT (id) DO NOTHING",
            ),
            by_id: fill(concat!(
                "SELECT ",
                event_columns!(),
                ", e.status, e.retry_count, e.processed_at, e.completed_at, e.error FROM {events} e WHERE e.id = ?1"
            )),
            select: fill(concat!(
                "SELECT ",
                event_columns!(),
                ", e.status, e.retry_count, e.processed_at, e.completed_at, e.error FROM {events} e"
            )),
            ready: fill("SELECT 1 FROM {events}_deliveries d WHERE d.state = 0 AND d.subscription = ?1 LIMIT 1"),
            // The oldest first. While a row of a key is leased, none of that key is taken, so what is taken of a key is a run
            // of its oldest. Behind keys that are leased it looks `?3` rows deep.
            claim: fill(concat!(
                "SELECT d.position, d.suspect, d.crashes, ",
                event_columns!(),
                " FROM (SELECT position, subscription, key, suspect, crashes FROM {events}_deliveries \
                 WHERE state = 0 AND subscription = ?1 ORDER BY position LIMIT ?3) d \
                 JOIN {events} e ON e.position = d.position \
                 WHERE d.key IS NULL OR NOT EXISTS (SELECT 1 FROM {events}_deliveries h \
                 WHERE h.subscription = d.subscription AND h.key = d.key AND h.state = 1) \
                 ORDER BY d.position LIMIT ?2"
            )),
            lease: fill(
                "UPDATE {events}_deliveries SET state = 1, token = ?3, holder = ?4, leased_until = ?5, claims = claims + 1 \
                 WHERE position = ?1 AND subscription = ?2",
            ),
            begin: fill(
                "UPDATE {events} SET status = 'processing', processed_at = coalesce(processed_at, ?2) \
                 WHERE position = ?1 AND status = 'pending'",
            ),
            rescue: fill(
                "UPDATE {events}_deliveries SET state = 0, suspect = 1, crashes = crashes + marked, marked = 0, \
                 holder = NULL, token = NULL WHERE state = 1 AND leased_until <= ?1",
            ),
            tokens: fill(
                "INSERT INTO {events}_meta VALUES ('token', ?1) ON CONFLICT DO UPDATE SET value = value + ?1 RETURNING value",
            ),
            finish: fill(
                "UPDATE {events}_deliveries SET state = ?4, attempts = ?5, reason = ?6, error = ?7, settled_at = ?8, \
                 marked = 0 WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
            ),
            unreadable: fill(
                "UPDATE {events}_deliveries SET state = 3, reason = 'unreadable', error = ?3, settled_at = ?4 \
                 WHERE position = ?1 AND subscription = ?2",
            ),
            release: fill(
                "UPDATE {events}_deliveries SET state = 0, marked = 0 \
                 WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
            ),
            has_token: fill(
                "SELECT 1 FROM {events}_deliveries WHERE position = ?1 AND subscription = ?2 AND token = ?3",
            ),
            mark: fill(
                "UPDATE {events}_deliveries SET marked = 1 \
                 WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
            ),
            unmark: fill(
                "UPDATE {events}_deliveries SET marked = 0, suspect = 0, crashes = 0 \
                 WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
            ),
            extend: fill(
                "UPDATE {events}_deliveries SET leased_until = ?4 \
                 WHERE position = ?1 AND subscription = ?2 AND token = ?3 AND state = 1",
            ),
            // The usual end of an event: all its deliveries are done, and its origin has told nothing.
            complete: fill(
                "UPDATE {events} SET status = 'completed', error = NULL, completed_at = ?2 \
                 WHERE position = ?1 AND local_status IS NULL AND status = 'processing' AND NOT EXISTS \
                 (SELECT 1 FROM {events}_deliveries d WHERE d.position = ?1 AND d.counts AND d.state <> 2)",
            ),
            // It goes on as before: something is open, and something has begun.
            is_open: fill(
                "SELECT 1 FROM {events} WHERE position = ?1 AND status = 'processing' AND EXISTS \
                 (SELECT 1 FROM {events}_deliveries d WHERE d.position = ?1 AND d.counts AND d.state < 2)",
            ),
            // The status of an event follows from its deliveries, and from what its origin told of its own.
            refresh: fill(
                "UPDATE {events} AS e SET \
                 status = f.status, \
                 error = CASE f.status WHEN 'failed' THEN f.error END, \
                 retry_count = max(retry_count, f.retries), \
                 processed_at = CASE f.status WHEN 'pending' THEN processed_at ELSE coalesce(processed_at, ?2) END, \
                 completed_at = CASE WHEN f.status IN ('completed', 'failed') THEN ?2 END \
                 FROM (SELECT \
                   CASE WHEN open > 0 OR l.local_status IN ('pending', 'processing') THEN \
                     CASE WHEN begun > 0 OR l.local_status IS NOT NULL THEN 'processing' ELSE 'pending' END \
                   WHEN dead > 0 OR l.local_status = 'failed' THEN 'failed' ELSE 'completed' END AS status, \
                   coalesce(first_error, l.local_error) AS error, retries \
                   FROM {events} l, (SELECT count(*) FILTER (WHERE state < 2) AS open, \
                     count(*) FILTER (WHERE state > 0) AS begun, count(*) FILTER (WHERE state = 3) AS dead, \
                     min(error) FILTER (WHERE state = 3) AS first_error, \
                     coalesce(max(attempts), 1) - 1 AS retries \
                     FROM {events}_deliveries WHERE position = ?1 AND counts) \
                   WHERE l.position = ?1) f \
                 WHERE e.position = ?1",
            ),
            subscription: fill("SELECT id, pattern FROM {events}_subscriptions WHERE member_of = ?1 AND name = ?2"),
            subscribe: fill(
                "INSERT INTO {events}_subscriptions \
                 (member_of, name, pattern, final_rest, dots, glob, literals, owner, alive_until) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            ),
            unsubscribe: fill("DELETE FROM {events}_subscriptions WHERE id = ?1"),
            forget_deliveries: fill("DELETE FROM {events}_deliveries WHERE subscription = ?1 RETURNING position"),
            alive: fill("UPDATE {events}_subscriptions SET alive_until = ?2 WHERE owner = ?1"),
            gone: fill("SELECT id FROM {events}_subscriptions WHERE owner IS NOT NULL AND alive_until <= ?1"),
            own: fill("SELECT id FROM {events}_subscriptions WHERE owner = ?1"),
            tell: fill("UPDATE {events} SET local_status = ?2, local_error = ?3 WHERE id = ?1 RETURNING position"),
            // A dead letter that was requeued at its holder: that tells from now on what becomes of it.
            cover: fill(
                "UPDATE {events}_deliveries SET state = 4 WHERE position = ?1 AND state = 3 AND holder = ?2 RETURNING error",
            ),
            delete_deliveries: fill(
                "DELETE FROM {events}_deliveries WHERE position = (SELECT position FROM {events} WHERE id = ?1)",
            ),
            delete: fill("DELETE FROM {events} WHERE id = ?1"),
            counts: fill("SELECT status, count(*) FROM {events} GROUP BY status"),
            expired: fill(
                "SELECT id FROM {events} WHERE created_at < ?1 AND completed_at < ?1 \
                 AND status IN ('completed', 'failed') ORDER BY created_at LIMIT ?2",
            ),
        }
    }
}
