//! The errors of PostgreSQL: whether to repeat the call, and the text, which has the message and the code but never the values of a row.

use std::error::Error as _;

use eventbroker::provider::BackendError;
use postgres::Error;

/// The SQLSTATE classes of a wrong request: data, constraints, limits of the program.
const REFUSED: [&str; 3] = ["22", "23", "54"];
/// The SQLSTATE classes after which the session is useless: connection, shutdown, a server that has become read-only.
const LOST: [&str; 3] = ["08", "57P", READ_ONLY];
/// The SQLSTATE of a write on a server that is read-only: a standby, or by a setting.
const READ_ONLY: &str = "25006";
/// The SQLSTATE codes of a statement that fits no longer: feature not supported, wrong type of an attribute, missing column.
const STALE: [&str; 3] = ["0A000", "42804", "42703"];
/// The SQLSTATE codes of a prepared statement that is missing in a session, or is there although this connection has not prepared it.
const OTHER_SESSION: [&str; 2] = ["26000", "42P05"];

/// The error of a call: whether another attempt can succeed.
pub(crate) fn backend_error(error: &Error) -> BackendError {
    let reason = format!("PostgreSQL: {}", text(error));
    let code = error.code().map_or("", |code| code.code());
    if REFUSED.iter().any(|class| code.starts_with(class)) {
        BackendError::Refused(reason)
    } else {
        // The server is gone, full or frozen, or the role lacks a right: an operator can repair that.
        BackendError::Unavailable(reason)
    }
}

/// Whether the connection is lost.
pub(crate) fn is_lost(error: &Error) -> bool {
    match error.code() {
        Some(code) => LOST.iter().any(|class| code.code().starts_with(class)),
        None => true,
    }
}

/// Whether the server is read-only.
pub(crate) fn is_read_only(error: &Error) -> bool {
    error.code().is_some_and(|code| code.code() == READ_ONLY)
}

/// Whether the statement may have been planned for columns that have changed since. It has changed nothing, so it may be repeated.
pub(crate) fn is_stale(error: &Error) -> bool {
    error.code().is_some_and(|code| STALE.contains(&code.code()))
}

/// The message, with the server's code or the cause in the network.
pub(crate) fn text(error: &Error) -> String {
    match error.as_db_error() {
        Some(db) if OTHER_SESSION.contains(&db.code().code()) => format!(
            "{} (SQLSTATE {}): a pooler shares the server's sessions between clients, so pooler: true is required",
            db.message(),
            db.code().code()
        ),
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => match error.source() {
            Some(cause) if !error.to_string().contains(&cause.to_string()) => format!("{error}: {cause}"),
            _ => error.to_string(),
        },
    }
}
