//! The pull loops: tasks of a session that send pull requests and take the messages, one for each consumer.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use async_nats::Subject;
use futures_channel::oneshot;
use futures_util::future::{Either, select};

use super::pull_buffer::{Pull, PullBuffer, ReadStart};
use super::pull_state::PulledMessage;
use crate::jetstream::api::{cut_off, unavailable};
use crate::jetstream::{Consumer, DeliveryInfo, KeyValue, Result};
use crate::membership::Membership;
use crate::partitions::{HandoverEffect, HandoverEvent};
use crate::settings::LeaseTimes;
use crate::subscriptions::{GiveBack, HeldMessages, PulledDelivery, RedeliveryInfo, give_back, redelivery_infos};
use crate::transport::{Incoming, PullInbox, Runtime, Session};

/// Pulls messages into the buffer.
pub(crate) struct Puller {
    pub(crate) runtime: Arc<Runtime>,
    pub(crate) kv: KeyValue,
    pub(crate) buffer: Arc<PullBuffer>,
    pub(crate) held: Arc<HeldMessages>,
    pub(crate) membership: Arc<Membership>,
    pub(crate) times: LeaseTimes,
}

impl Puller {
    /// Gives deliveries back to the server, and waits for that.
    pub(crate) fn give_back_now(&self, back: Vec<GiveBack>) -> Result<()> {
        if back.is_empty() {
            return Ok(());
        }
        let kv = self.kv.clone();
        self.runtime.call(move |session| async move { give_back(&session, &kv, back).await })
    }

    /// Sends pull requests, without a wait.
    pub(super) fn pull(self: &Arc<Self>, pulls: Vec<Pull>) {
        let puller = Arc::clone(self);
        self.runtime.post(move |session| match session {
            Ok(session) => Some(Box::pin(async move {
                for (at, pull) in pulls.iter().enumerate() {
                    if let Err(error) = puller.pull_one(&session, pull).await {
                        puller.buffer.pulls_failed(&pulls[at..], error);
                        return;
                    }
                }
            })),
            Err(error) => {
                puller.buffer.pulls_failed(&pulls, error);
                None
            }
        });
    }

    async fn pull_one(self: &Arc<Self>, session: &Session, pull: &Pull) -> Result<()> {
        let Pull { consumer, batch } = pull;
        let Some((inbox, start)) = self.buffer.register_reader(session, &consumer.id) else { return Ok(()) };
        if let Some(start) = start
            && let Err(error) = self.start_reader(session, consumer, inbox.clone(), start).await
        {
            self.buffer.read_failed(&consumer.id);
            return Err(error);
        }
        consumer.pull(session, &inbox, *batch, self.buffer.expires()).map_err(unavailable)
    }

    /// Starts the task that reads a consumer in this session, and recovers the messages that are not here.
    async fn start_reader(
        self: &Arc<Self>,
        session: &Session,
        consumer: &Arc<Consumer>,
        inbox: Subject,
        start: ReadStart,
    ) -> Result<()> {
        let ReadStart { stopped, was_read, effect } = start;
        let pulled = session.subscribe(&inbox).await.ok_or_else(cut_off)?;
        let (puller, next) = (Arc::clone(self), session.clone());
        Session::spawn(puller.read(next, Arc::clone(consumer), inbox, pulled, stopped));
        // From here on no message is lost in transit, so the missing ones were lost before, or given back when the consumer was read last.
        let lost = self.recover(session, consumer).await?;
        if was_read {
            self.buffer.remember_lost(&consumer.id, &lost);
        }
        if effect.is_none() {
            self.buffer.wait_for_lost(&consumer.id, lost);
        } else if self.buffer.on(&consumer.id, HandoverEvent::Recovered) == Some(HandoverEffect::Count) {
            self.count(session, consumer).await?;
        }
        Ok(())
    }

    /// Takes the messages of a consumer until it is stopped. Later ones go back.
    async fn read(
        self: Arc<Self>,
        session: Session,
        consumer: Arc<Consumer>,
        inbox: Subject,
        mut pulled: PullInbox,
        mut stopped: oneshot::Receiver<()>,
    ) {
        let (buffer, id) = (&self.buffer, &consumer.id);
        let mut is_stopped = false;
        loop {
            let messages = if is_stopped {
                pulled.next().await
            } else {
                match select(pin!(pulled.next()), &mut stopped).await {
                    Either::Left((messages, _)) => messages,
                    Either::Right(_) => {
                        is_stopped = true;
                        Some(Vec::new())
                    }
                }
            };
            let Some(mut messages) = messages else { return };
            if messages.is_empty() {
                // Messages in transit still arrive.
                pulled.end();
                continue;
            }
            let is_status = |it: &mut Incoming| it.headers.status().is_some();
            let statuses: Vec<Incoming> = messages.extract_if(.., is_status).collect();
            for message in statuses.iter().filter(|_| !is_stopped) {
                if let Some(batch) = buffer.request_ended(id, &message.headers)
                    && consumer.pull(&session, &inbox, batch, buffer.expires()).is_err()
                {
                    session.give_up("a pull request could not be sent");
                }
            }
            let arrived = match self.with_history(&session, &consumer, messages).await {
                Ok(arrived) => arrived,
                Err(error) => {
                    // The messages come again when their leases have expired.
                    buffer.on(id, HandoverEvent::GivenBack);
                    buffer.fail(error);
                    continue;
                }
            };
            if arrived.is_empty() {
                continue;
            }
            let back = if is_stopped { arrived } else { buffer.put(id, arrived, session.generation) };
            let back: Vec<GiveBack> = back.iter().map(|it| it.delivery.to_give_back(&consumer)).collect();
            if !back.is_empty()
                && let Err(error) = give_back(&session, &self.kv, back).await
            {
                buffer.fail(error);
            }
        }
    }

    /// Reads the history of messages that were delivered before.
    async fn with_history(
        &self,
        session: &Session,
        consumer: &Consumer,
        messages: Vec<Incoming>,
    ) -> Result<Vec<PulledMessage>> {
        let leased_at = Instant::now();
        let mut arrived = Vec::with_capacity(messages.len());
        let mut again = Vec::new();
        for message in messages {
            let Some(reply) = message.reply else { continue };
            let Some(facts) = DeliveryInfo::of(&reply) else { continue };
            if facts.times_delivered > 1 {
                again.push(facts);
            }
            let delivery = PulledDelivery {
                sequence: facts.sequence,
                stored_at: facts.stored_at,
                reply,
                times_delivered: facts.times_delivered,
                number: facts.number,
                generation: session.generation,
                leased_at,
                info: RedeliveryInfo::default(),
            };
            let Incoming { subject, headers, payload, .. } = message;
            arrived.push(PulledMessage { subject, headers, payload, delivery });
        }
        let called = self.buffer.maybe_called(&consumer.id, again);
        if !called.is_empty() {
            // The request takes time; meanwhile the messages count as here.
            self.buffer.note_arriving(&consumer.id, arrived.iter().map(|it| it.delivery.sequence).collect());
            let infos = redelivery_infos(session, &self.kv, consumer, &called).await?;
            let infos: HashMap<u64, RedeliveryInfo> = called.iter().map(|it| it.sequence).zip(infos).collect();
            for PulledMessage { delivery, .. } in &mut arrived {
                delivery.info = infos.get(&delivery.sequence).copied().unwrap_or_default();
            }
        }
        Ok(arrived)
    }
}
