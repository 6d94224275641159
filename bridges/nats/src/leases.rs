//! What the server's count of deliveries does not tell: whether an earlier lease was given back or lost, and how often a call that was marked
//! never came to an end. It is noted for deliveries that were not handled the first time, and forgotten when they are.

use eventbroker::provider::BackendError;
use serde::{Deserialize, Serialize};

use crate::connection::Database;
use crate::intake::Unwanted;
use crate::js::{self, GIVEN_BACK, Standing};
use crate::registry::{LEASE, Leg};
use crate::runtime::Session;
use crate::state::{read, write};

/// What is noted of the leases on a delivery.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// The delivery, by the server's count, that was given back: the next one is no suspect.
    pub(crate) given_back: u64,
    /// Marked calls that never came to an end.
    pub(crate) crashes: u32,
    /// A call was begun, and has not ended.
    pub(crate) begun: bool,
}

/// Where it is noted.
pub(crate) fn key(database: &Database, unit: &str, again: bool, sequence: u64) -> String {
    let which = if again { "again" } else { "main" };
    format!("{}.{which}.{sequence}", database.state.key(LEASE, unit))
}

/// Whether a delivery that comes again is a suspect, what is noted of it, and whether something is.
pub(crate) async fn look_up(
    session: &Session,
    database: &Database,
    leg: &Leg,
    standing: &Standing,
) -> Result<(bool, Note, bool), BackendError> {
    let key = key(database, &leg.unit, leg.again, standing.sequence);
    let found = database.state.get(session, &key).await?;
    let noted = found.is_some();
    let mut note: Note = found.as_ref().and_then(read).unwrap_or_default();
    if note.given_back + 1 == standing.delivered {
        return Ok((false, note, noted));
    }
    if note.begun {
        (note.crashes, note.begun) = (note.crashes + 1, false);
        database.state.put(session, &key, write(&note)).await?;
    }
    Ok((true, note, noted))
}

/// Gives back what nobody has begun.
pub(crate) async fn give_back(
    session: &Session,
    database: &Database,
    unwanted: Vec<Unwanted>,
) -> Result<(), BackendError> {
    let note = |it: &Unwanted| {
        let note = Note { given_back: it.arrived.delivered, begun: false, ..it.arrived.note };
        (key(database, &it.unit, it.again, it.arrived.entry.sequence), write(&note))
    };
    database.state.put_all(session, unwanted.iter().map(note).collect()).await?;
    let acks = unwanted.into_iter().map(|it| js::Ack {
        consumer: it.consumer,
        to: it.arrived.reply,
        verb: GIVEN_BACK,
    });
    js::ack_all(session, acks.collect()).await
}
