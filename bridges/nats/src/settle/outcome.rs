//! What is told of a lease that ends, beside that its message is acknowledged: what the setting says of the event's status, its dead letter,
//! and the note about who may have it next.

use std::time::SystemTime;

use async_nats::{HeaderMap, HeaderName, HeaderValue, Subject};
use bytes::Bytes;
use eventbroker::provider::{BackendError, LeaseOutcome};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::jetstream::entry::MESSAGE_ID;
use crate::jetstream::kv::{number, write};
use crate::jetstream::message::{self as js, Outgoing};
use crate::jetstream::names::token;
use crate::provider::backend::{Database, Held};
use crate::query::status::{self, note};
use crate::settings::Status;
use crate::settle::lease_record::{self as leases, Note};
use crate::subscriptions::DEAD;
use crate::transport::runtime::Session;

/// A dead letter, as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Letter {
    pub(crate) unit: String,
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) event: String,
    pub(crate) reason: String,
    pub(crate) attempts: u32,
    pub(crate) errors: Vec<(u32, Timestamp, String)>,
    pub(crate) dead_at: Timestamp,
    pub(crate) requeues: u32,
}

/// What has to be told of a lease that ends.
pub(crate) struct End {
    pub(crate) held: Held,
    pub(crate) outcome: LeaseOutcome,
}

/// Notes what the acknowledgement of a lease does not tell.
pub(crate) async fn tell(session: &Session, database: &Database, end: &End) -> Result<(), BackendError> {
    let End { held, outcome } = end;
    let (state, keeps) = (&database.state, database.settings.status);
    let key = leases::key(database, &held.leg.unit, held.leg.again, held.sequence);
    match outcome {
        LeaseOutcome::Done { attempts } => {
            let retries = attempts.saturating_sub(1);
            if held.leg.again {
                js::delete(session, &state.stream, held.sequence).await?;
            }
            if held.leg.again || retries > 0 || keeps == Status::Full {
                let now = Timestamp::now().as_millisecond();
                note(session, database, held.event.id(), |note| {
                    note.retries = note.retries.max(retries);
                    if held.leg.again {
                        note.again.remove(&held.leg.unit);
                        note.dead.remove(&held.leg.unit);
                    }
                    if keeps == Status::Full {
                        note.done.insert(held.leg.unit.clone(), now);
                    }
                })
                .await?;
            }
            if held.noted {
                state.forget(session, vec![key]).await?;
            }
        }
        LeaseOutcome::Dead { attempts, error, .. } => {
            // A dead letter may be requeued as soon as it is published; the requeue sets `again`. A requeued delivery has that mark from its
            // own requeue, so its note is written before. For another delivery the mark says that this letter was requeued already.
            let died = |note: &mut status::Note| {
                if note.again.contains(&held.leg.unit) && !held.leg.again {
                    return;
                }
                note.again.remove(&held.leg.unit);
                note.retries = note.retries.max(attempts.saturating_sub(1));
                note.dead.insert(held.leg.unit.clone(), error.clone());
            };
            if held.leg.again {
                note(session, database, held.event.id(), died).await?;
            }
            bury(session, database, held, outcome).await?;
            if !held.leg.again {
                note(session, database, held.event.id(), died).await?;
            }
            if held.leg.again {
                js::delete(session, &state.stream, held.sequence).await?;
            }
            if held.noted {
                state.forget(session, vec![key]).await?;
            }
        }
        _ => {
            let note = Note { given_back: held.delivered, crashes: held.note.crashes, begun: false };
            state.put(session, &key, write(&note)).await?;
        }
    }
    Ok(())
}

/// Keeps a dead letter.
async fn bury(session: &Session, database: &Database, held: &Held, outcome: &LeaseOutcome) -> Result<(), BackendError> {
    let LeaseOutcome::Dead { reason, attempts, errors, .. } = outcome else { return Ok(()) };
    let time = |time: SystemTime| Timestamp::try_from(time).unwrap_or(Timestamp::UNIX_EPOCH);
    let letter = Letter {
        unit: held.leg.unit.clone(),
        name: held.name.to_string(),
        id: held.event.id().to_string(),
        event: String::from_utf8(held.event.to_json()).unwrap_or_default(),
        reason: reason.as_str().to_owned(),
        attempts: *attempts,
        errors: errors.iter().map(|it| (it.attempt, time(it.at), it.message.to_string())).collect(),
        dead_at: Timestamp::now(),
        requeues: held.requeues,
    };
    let id = token(&letter.id);
    let key = database.state.key(DEAD, &format!("{}.{}.{id}", token(database.group()), held.leg.unit));
    // A verdict that is repeated is the same letter.
    let once = format!("dead {} {} {} {}", held.leg.unit, held.leg.again, held.sequence, held.delivered);
    let mut headers = HeaderMap::new();
    headers.insert(HeaderName::from_static(MESSAGE_ID), once.parse::<HeaderValue>().map_err(js::unavailable)?);
    let message = Outgoing { subject: Subject::from(key), headers, payload: Bytes::from(write(&letter)) };
    match js::publish_all(session, vec![message]).await?.pop() {
        Some(stored) => number(stored).map(drop),
        None => Err(js::cut_off()),
    }
}
