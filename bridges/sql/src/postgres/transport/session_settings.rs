//! The settings of a session that the statements rest on. They replace those of the role and of the database.

/// The name and the value of each. A server leaves out those that it does not know.
///
/// The statistics of tables that fill and empty mislead the planner, so scans are off: every statement finds its rows by an index.
const SETTINGS: &[(&str, &str)] = &[
    ("statement_timeout", "10s"),
    ("lock_timeout", "5s"),
    ("idle_in_transaction_session_timeout", "15s"),
    ("idle_session_timeout", "0"),
    ("transaction_timeout", "0"),
    ("client_min_messages", "warning"),
    ("default_transaction_isolation", "read committed"),
    ("default_transaction_deferrable", "off"),
    ("row_security", "on"),
    ("standard_conforming_strings", "on"),
    ("TimeZone", "UTC"),
    ("enable_seqscan", "off"),
    ("enable_hashjoin", "off"),
    ("enable_mergejoin", "off"),
    ("enable_indexscan", "on"),
    ("enable_bitmapscan", "on"),
    ("jit", "off"),
];

/// Begins a transaction in which each statement sees what was committed before it.
pub(super) const BEGIN: &str = "BEGIN ISOLATION LEVEL READ COMMITTED, NOT DEFERRABLE";

/// A condition that is true. The commit of its transaction has reached the server's disk when it returns, or a stricter setting of the
/// session holds. It is part of the statement, because a pooler may hand the session over to another client after each transaction.
pub(crate) const SYNCED: &str = "(SELECT set_config('synchronous_commit', \
     CASE WHEN s IN ('off', 'local', 'remote_write') THEN 'on' ELSE s END, true) \
     FROM current_setting('synchronous_commit') s) IS NOT NULL";

/// A condition that is true. The commit of its transaction does not wait for the disk.
pub(crate) const UNSYNCED: &str = "(SELECT set_config('synchronous_commit', 'off', true)) IS NOT NULL";

/// The statement that makes the settings, for the session or for the current transaction.
pub(super) fn statement(is_local: bool) -> String {
    let values: Vec<String> = SETTINGS.iter().map(|(name, value)| format!("('{name}', '{value}')")).collect();
    format!(
        "SELECT set_config(name, value, {is_local}) FROM (VALUES {}) AS s(name, value) \
         WHERE current_setting(name, true) IS NOT NULL",
        values.join(", ")
    )
}
