//! Finds a pooler that gives a session of the server to another client after each transaction.

use std::sync::Arc;

use eventbroker::provider::BackendError;
use postgres::{Client, Error, SimpleQueryMessage};

use super::address::Address;
use super::bounded::within;
use super::error;
use super::link::CALL_LIMIT;

/// The number of a session, and the start of its server, because servers on several hosts may number sessions alike.
const IDENTITY: &str = "SELECT pg_backend_pid() || ' ' || extract(epoch FROM pg_postmaster_start_time())";
/// The connection that asks in each turn. No turn-taking of a pooler gives each connection the same session in all turns.
const TURNS: [usize; 8] = [0, 1, 1, 0, 0, 1, 0, 1];

/// Whether two connections, used in turns, see one session, or one connection sees two.
pub(crate) fn shares_sessions(address: &Arc<Address>) -> Result<bool, BackendError> {
    let asked = Arc::clone(address);
    // Servers that stand still are not tried again for the second connection.
    let limit = address.connect_limit() + CALL_LIMIT;
    let probed = within(limit, move || asked.backoff.attempt(|| probe(&asked)));
    probed.unwrap_or_else(|problem| Err(BackendError::Unavailable(format!("{address}: {problem}"))))
}

/// The error names the address. It may say why the pooler is refused.
fn probe(address: &Address) -> Result<bool, String> {
    let connect = || address.connect(Ok::<Client, Error>);
    let mut clients = [connect()?, connect()?];
    let shares = share_sessions(&mut clients).map_err(|error| format!("{address}: {}", error::text(&error)))?;
    if shares {
        // PgBouncer with `pool_mode = statement` refuses that.
        let begin = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '15s'";
        let transaction = clients[0].batch_execute(begin).and_then(|()| clients[0].batch_execute("ROLLBACK"));
        transaction.map_err(|error| {
            format!(
                "{address}: a pooler shares sessions and allows no transactions ({}); pool_mode = transaction is required",
                error::text(&error)
            )
        })?;
    }
    Ok(shares)
}

/// Whether two connections see one session, or one of them sees two.
fn share_sessions(clients: &mut [Client; 2]) -> Result<bool, Error> {
    let mut seen = [None, None];
    for turn in TURNS {
        let identity = identity(&mut clients[turn])?;
        let (own, other) = (&seen[turn], &seen[1 - turn]);
        if own.as_ref().is_some_and(|own| *own != identity) || other.as_ref() == Some(&identity) {
            return Ok(true);
        }
        seen[turn] = Some(identity);
    }
    Ok(false)
}

fn identity(client: &mut Client) -> Result<String, Error> {
    let rows = client.simple_query(IDENTITY)?;
    let row = rows.iter().find_map(|it| if let SimpleQueryMessage::Row(row) = it { row.get(0) } else { None });
    Ok(row.unwrap_or_default().to_owned())
}
