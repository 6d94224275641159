//! What a failure of PostgreSQL means, and how it is told: with its message and its code, never with the values of a row.

use std::error::Error as _;

use eventbroker::provider::BackendError;
use postgres::Error;

/// Classes of SQLSTATE that say that the request itself is wrong: data, constraints, limits of the program.
const REFUSED: [&str; 3] = ["22", "23", "54"];
/// Classes that say that the session is of no use any more: connection, shutdown, a server that has become read-only.
const LOST: [&str; 3] = ["08", "57P", "25006"];

/// Whether it pays to try again.
pub(crate) fn backend_error(error: &Error) -> BackendError {
    let reason = format!("PostgreSQL: {}", text(error));
    let code = error.code().map_or("", |code| code.code());
    if REFUSED.iter().any(|class| code.starts_with(class)) {
        BackendError::Refused(reason)
    } else {
        // Gone, full, frozen, without rights for the moment: an operator may put it right.
        BackendError::Unavailable(reason)
    }
}

/// Whether the connection is lost with it.
pub(crate) fn is_lost(error: &Error) -> bool {
    match error.code() {
        Some(code) => LOST.iter().any(|class| code.code().starts_with(class)),
        None => true,
    }
}

/// The message, with the code of the server or the cause in the network.
pub(crate) fn text(error: &Error) -> String {
    match error.as_db_error() {
        Some(db) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        None => match error.source() {
            Some(cause) if !error.to_string().contains(&cause.to_string()) => format!("{error}: {cause}"),
            _ => error.to_string(),
        },
    }
}
