//! What the server's count of deliveries does not tell: whether an earlier lease was given back or lost, and how often a call that was marked
//! never came to an end. It is noted for deliveries that were not handled the first time, and forgotten when they are.

use eventbroker::provider::BackendError;
use serde::{Deserialize, Serialize};

use crate::consume::pull_state::Unwanted;
use crate::jetstream::kv::{read, write};
use crate::jetstream::message::{self as js, GIVEN_BACK, Standing};
use crate::provider::backend::Database;
use crate::subscriptions::{LEASE, Leg};
use crate::transport::runtime::Session;

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

/// What is known of a delivery that comes again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    /// An earlier lease on it was lost.
    pub(crate) suspect: bool,
    /// What is noted of its leases, and whether something is.
    pub(crate) note: Note,
    pub(crate) noted: bool,
}

/// What is known of deliveries that come again.
pub(crate) async fn look_up(
    session: &Session,
    database: &Database,
    leg: &Leg,
    standings: &[Standing],
) -> Result<Vec<Known>, BackendError> {
    let keys: Vec<String> = standings.iter().map(|it| key(database, &leg.unit, leg.again, it.sequence)).collect();
    let found = database.state.get_all(session, keys.clone()).await?;
    let (mut known, mut crashed) = (Vec::with_capacity(keys.len()), Vec::new());
    for ((standing, found), key) in standings.iter().zip(found).zip(keys) {
        let noted = found.is_some();
        let mut note: Note = found.as_ref().and_then(read).unwrap_or_default();
        let suspect = note.given_back + 1 != standing.delivered;
        if suspect && note.begun {
            (note.crashes, note.begun) = (note.crashes + 1, false);
            crashed.push((key, write(&note)));
        }
        known.push(Known { suspect, note, noted });
    }
    database.state.put_all(session, crashed).await?;
    Ok(known)
}

/// Gives back what nobody has begun.
pub(crate) async fn give_back(
    session: &Session,
    database: &Database,
    unwanted: Vec<Unwanted>,
) -> Result<(), BackendError> {
    let note = |it: &Unwanted| {
        let note = Note { given_back: it.arrived.delivered, begun: false, ..it.arrived.known.note };
        (key(database, &it.unit, it.again, it.arrived.entry.sequence), write(&note))
    };
    database.state.put_all(session, unwanted.iter().map(note).collect()).await?;
    let acks = unwanted.iter().map(|it| it.arrived.ack(it.consumer.clone(), GIVEN_BACK));
    js::ack_all(session, &acks.collect::<Vec<_>>()).await
}
