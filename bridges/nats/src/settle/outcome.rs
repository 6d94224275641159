//! The outcome of a lease, beside the acknowledgement of its message: the status of the event, its dead letter, and the record of its leases.

use eventbroker::provider::LeaseOutcome;
use eventbroker_bridge_kit::dead_letter::StoredDeadLetter;
use jiff::Timestamp;

use super::status_record::{StatusRecord, change_status};
use crate::jetstream::entry::MESSAGE_ID;
use crate::jetstream::kv::{self, DEAD};
use crate::jetstream::names::token;
use crate::jetstream::{KeyValue, NewMessage, Result, message};
use crate::settings::Status;
use crate::subscriptions::HeldMessage;
use crate::subscriptions::{LeaseRecord, lease_key};
use crate::transport::Session;

/// A lease that ends.
pub(crate) struct Ended {
    pub(crate) held: HeldMessage,
    pub(crate) outcome: LeaseOutcome,
}

/// Records the outcome of a lease.
pub(crate) async fn record(session: &Session, kv: &KeyValue, group: &str, kept: Status, ended: &Ended) -> Result<()> {
    let Ended { held, outcome } = ended;
    let (durable, is_redelivery) = (&held.consumer.durable, held.consumer.is_redelivery);
    let key = lease_key(kv, &held.consumer, held.sequence);
    match outcome {
        LeaseOutcome::Done { attempts } => {
            let retries = attempts.saturating_sub(1);
            if is_redelivery {
                message::delete(session, &kv.stream, held.sequence).await?;
            }
            if is_redelivery || retries > 0 || kept == Status::Full {
                let now = Timestamp::now().as_millisecond();
                change_status(session, kv, held.event.id(), |status| {
                    status.retries = status.retries.max(retries);
                    if is_redelivery {
                        status.again.remove(durable);
                        status.dead.remove(durable);
                    }
                    if kept == Status::Full {
                        status.done.insert(durable.clone(), now);
                    }
                })
                .await?;
            }
        }
        LeaseOutcome::Dead { attempts, error, .. } => {
            // A dead letter may be requeued as soon as it is stored, and a requeue sets `again`. A redelivery has that mark from its own
            // requeue, so its status is written first. For any other delivery the mark says that this letter was requeued already.
            let died = |status: &mut StatusRecord| {
                if !is_redelivery && status.again.contains(durable) {
                    return;
                }
                status.again.remove(durable);
                status.retries = status.retries.max(attempts.saturating_sub(1));
                status.dead.insert(durable.clone(), error.clone());
            };
            if is_redelivery {
                change_status(session, kv, held.event.id(), died).await?;
                dead_letter(session, kv, group, held, outcome).await?;
                message::delete(session, &kv.stream, held.sequence).await?;
            } else {
                dead_letter(session, kv, group, held, outcome).await?;
                change_status(session, kv, held.event.id(), died).await?;
            }
        }
        _ => {
            let record = LeaseRecord { given_back: held.delivered, crashes: held.record.crashes, begun: false };
            return kv.put(session, &key, kv::write(&record)).await.map(drop);
        }
    }
    if held.is_recorded { kv.remove(session, [key]).await } else { Ok(()) }
}

/// Stores a dead letter. A repeated verdict stores none.
async fn dead_letter(
    session: &Session,
    kv: &KeyValue,
    group: &str,
    held: &HeldMessage,
    outcome: &LeaseOutcome,
) -> Result<()> {
    let (durable, is_redelivery) = (&held.consumer.durable, held.consumer.is_redelivery);
    let letter = StoredDeadLetter::new(durable, &held.name, &held.event, outcome, held.requeues);
    let Some(letter) = letter else { return Ok(()) };
    let key = kv.key(DEAD, &format!("{}.{durable}.{}", token(group), token(&letter.id)));
    let once = format!("dead {durable} {is_redelivery} {} {}", held.sequence, held.delivered);
    let message = NewMessage::new(key, kv::write(&letter)).with(MESSAGE_ID, &once)?;
    message::publish(session, message).await?.number().map(drop)
}
