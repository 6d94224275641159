//! Recovery: taking back deliveries that were lost in transit or are in other hands, and counting the unsettled messages at the barrier of a
//! hand-over.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;

use super::pull_loop::Puller;
use crate::jetstream::ack::{NAK, ack_all};
use crate::jetstream::{Ack, Consumer, ConsumerInfo, Result, Scan, Start, consumer};
use crate::partitions::Event;
use crate::transport::Session;

/// The largest number of messages that are read to find the lost ones.
const SCAN: usize = 10_000;
/// Messages of one step.
const STEP: usize = 500;
/// How long the server may take to process the acknowledgements.
const LIMIT: Duration = Duration::from_secs(2);

impl Puller {
    /// Gives deliveries that are not in hand back to the server, which delivers them again at once, before newer messages. Returns their
    /// numbers. The server does not say which member has a delivery; so this is for the only member of a subscription, or for the owner of the
    /// consumer, which takes back the deliveries of other members as well.
    pub(super) async fn recover(&self, session: &Session, consumer: &Arc<Consumer>) -> Result<HashSet<u64>> {
        let nothing = Ok(HashSet::new());
        let Some(info) = consumer::info(session, consumer).await? else { return nothing };
        let ConsumerInfo { delivered, deliveries, floor, open, .. } = info;
        let is_alone = consumer.partition.is_some() || self.membership.is_alone(session, &consumer.durable).await?;
        if open == 0 || !is_alone {
            return nothing;
        }
        // Messages that had arrived before the answer are in hand by now, or settled.
        let in_hand = self.in_hand(consumer);
        let settled = self.held.recent.of_consumer(&consumer.durable, &consumer.id, floor, delivered);
        let is_lost = |it: &u64| *it <= delivered && !in_hand.contains(it) && !settled.contains(it);
        let mut scan = Scan::open(session, &consumer.stream, &consumer.filters, Start::At(floor + 1), true).await?;
        let mut lost = Vec::new();
        let mut seen = 0;
        while seen < SCAN {
            let step = scan.next(session, STEP).await?;
            seen += step.len();
            lost.extend(step.iter().map(|message| message.sequence).filter(is_lost));
            if step.last().is_none_or(|last| last.sequence >= delivered) {
                break;
            }
        }
        scan.close(session).await;
        if lost.is_empty() {
            return nothing;
        }
        let nak = |sequence: &u64| Ack {
            consumer: Arc::clone(&consumer.id),
            to: format!("$JS.ACK.{}.{}.1.{sequence}.{deliveries}.0.0", consumer.stream, consumer.name).into(),
            verb: NAK,
            generation: session.generation,
        };
        // The server ignores the acknowledgement of a message that it does not wait for.
        let naks: Vec<Ack> = lost.iter().map(nak).collect();
        match Session::within(LIMIT, ack_all(session, &naks)).await {
            Some(sent) => sent.map(|()| lost.into_iter().collect()),
            // They come again when their leases have expired.
            None => nothing,
        }
    }

    /// The messages of a consumer that are here, in hand or not.
    fn in_hand(&self, consumer: &Consumer) -> HashSet<u64> {
        let _moves = self.held.lock_moves();
        let mut in_hand = self.held.of_consumer(consumer, |_| true);
        in_hand.extend(self.buffer.waiting(&consumer.id));
        in_hand.extend(self.buffer.arriving(&consumer.id));
        in_hand
    }

    /// Counts at the barriers whose count is due, without a wait.
    pub(super) fn post_counts(self: &Arc<Self>) {
        let due = self.buffer.due_counts();
        if due.is_empty() {
            return;
        }
        let puller = Arc::clone(self);
        self.runtime.post(move |session| {
            let session = session.ok()?;
            Some(Box::pin(async move {
                if let Err(error) = try_join_all(due.iter().map(|it| puller.count(&session, it))).await {
                    tracing::debug!(%error, "the unsettled messages of a partition were not counted; the count is repeated");
                }
            }))
        });
    }

    /// Counts the unsettled messages of a partition that are in other hands.
    pub(super) async fn count(&self, session: &Session, consumer: &Consumer) -> Result<()> {
        let Some(round) = self.buffer.round(&consumer.id) else { return Ok(()) };
        let before = self.ordered_here(consumer);
        // A consumer that does not exist waits for nothing.
        let info = consumer::info(session, consumer).await?.unwrap_or_default();
        let after = self.ordered_here(consumer);
        let here = before.intersection(&after).count() as u64;
        let missing = info.open.saturating_sub(here).try_into().unwrap_or(usize::MAX);
        self.buffer.on(&consumer.id, Event::Counted { round, missing, deliveries: info.deliveries });
        self.buffer.ring();
        Ok(())
    }

    /// The messages of a partition that have their place in the order here, without those whose verdict is on its way.
    fn ordered_here(&self, consumer: &Consumer) -> HashSet<u64> {
        let _moves = self.held.lock_moves();
        let mut here = self.held.of_consumer(consumer, |held| !held.is_ending);
        here.extend(self.buffer.waiting(&consumer.id));
        here
    }
}
