//! The outcome of a lease, beside the acknowledgement of its message: the status of the event, its dead letter, and the record of its leases. The
//! message of a requeue, which only this subscription gets, is removed when it is settled.

use eventbroker::provider::LeaseOutcome;
use eventbroker_bridge_kit::dead_letter::StoredDeadLetter;
use jiff::Timestamp;

use super::status_record::{StatusRecord, change_status};
use crate::jetstream::entry::MESSAGE_ID;
use crate::jetstream::kv;
use crate::jetstream::{KeyValue, NewMessage, Result, message};
use crate::settings::Status;
use crate::subscriptions::{HeldMessage, LeaseRecord, lease_key};
use crate::transport::Session;

/// A lease that ends.
pub(crate) struct Ended {
    pub(crate) token: u64,
    pub(crate) held: HeldMessage,
    pub(crate) outcome: LeaseOutcome,
}

/// Records outcomes in a session.
pub(crate) struct OutcomeRecorder<'a> {
    pub(crate) session: &'a Session,
    pub(crate) kv: &'a KeyValue,
    /// The group of the subscriptions.
    pub(crate) group: &'a str,
    /// The statuses that are kept.
    pub(crate) kept: Status,
}

impl OutcomeRecorder<'_> {
    /// Records the outcome of a lease, and removes the message of a requeue and the record of earlier leases, which nobody needs any more.
    pub(crate) async fn record_and_clean_up(&self, ended: &Ended) -> Result<()> {
        let Self { session, kv, kept, .. } = *self;
        let Ended { held, outcome, .. } = ended;
        let HeldMessage { consumer, delivery, .. } = held;
        let (durable, is_requeue) = (&consumer.durable, consumer.is_requeue);
        let key = lease_key(kv, consumer, delivery.sequence);
        match outcome {
            LeaseOutcome::Done { attempts } => {
                let retries = attempts.saturating_sub(1);
                if is_requeue {
                    message::delete(session, &kv.stream, delivery.sequence).await?;
                }
                if is_requeue || retries > 0 || kept == Status::Full {
                    let now = Timestamp::now().as_millisecond();
                    change_status(session, kv, held.event.id(), |status| {
                        status.retries = status.retries.max(retries);
                        if is_requeue {
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
                // A dead letter may be requeued as soon as it is stored, and that sets the mark `again`. The message of a requeue has the mark
                // already, so its status is written first. For any other message the mark says that this letter was requeued meanwhile.
                let died = |status: &mut StatusRecord| {
                    if !is_requeue && status.again.contains(durable) {
                        return;
                    }
                    status.again.remove(durable);
                    status.retries = status.retries.max(attempts.saturating_sub(1));
                    status.dead.insert(durable.clone(), error.clone());
                };
                if is_requeue {
                    change_status(session, kv, held.event.id(), died).await?;
                    self.write_dead_letter(held, outcome).await?;
                    message::delete(session, &kv.stream, delivery.sequence).await?;
                } else {
                    self.write_dead_letter(held, outcome).await?;
                    change_status(session, kv, held.event.id(), died).await?;
                }
            }
            _ => {
                let (given_back, crashes) = (delivery.times_delivered, delivery.info.record.crashes);
                let record = LeaseRecord { given_back, crashes, is_in_call: false };
                return kv.put(session, &key, kv::write(&record)).await.map(drop);
            }
        }
        if delivery.info.is_recorded { kv.remove(session, [key]).await } else { Ok(()) }
    }

    /// Stores a dead letter. A repeated verdict stores none.
    async fn write_dead_letter(&self, held: &HeldMessage, outcome: &LeaseOutcome) -> Result<()> {
        let Self { session, kv, group, .. } = *self;
        let HeldMessage { consumer, delivery, .. } = held;
        let (durable, is_requeue) = (&consumer.durable, consumer.is_requeue);
        let letter = StoredDeadLetter::new(durable, &held.name, &held.event, outcome, held.requeues);
        let Some(letter) = letter else { return Ok(()) };
        let key = kv.dead_letter(group, durable, &letter.id);
        let once = format!("dead {durable} {is_requeue} {} {}", delivery.sequence, delivery.times_delivered);
        let message = NewMessage::new(key, kv::write(&letter)).with(MESSAGE_ID, &once)?;
        message::publish(session, message).await?.sequence().map(drop)
    }
}
