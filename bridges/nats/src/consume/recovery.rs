//! Recovery: taking back deliveries that were lost in transit, and with partitions those of earlier owners.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::pull_loop::Puller;
use crate::jetstream::ack::{NAK, ack_all};
use crate::jetstream::{Ack, Consumer, ConsumerInfo, Result, Scan, ScanRequest, Start, consumer};
use crate::transport::Session;

/// The largest number of messages that are read to find the lost ones.
const SCAN: usize = 10_000;
/// Messages of one step.
const STEP: usize = 500;
/// How long the server may take to process the acknowledgements.
const LIMIT: Duration = Duration::from_secs(2);

impl Puller {
    /// Gives deliveries that are not here back to the server, which delivers them again at once, before newer messages. Returns their
    /// sequences. The server does not say which member has a delivery; so this is for the only member of a subscription, or for the owner of the
    /// consumer, which takes back the deliveries of other members as well.
    pub(super) async fn recover(&self, session: &Session, consumer: &Arc<Consumer>) -> Result<HashSet<u64>> {
        let nothing = Ok(HashSet::new());
        let Some(info) = consumer::info(session, consumer).await? else { return nothing };
        let ConsumerInfo { last_delivered, deliveries, ack_floor, open, .. } = info;
        let is_alone = consumer.partition.is_some() || self.membership.is_alone(session, &consumer.durable).await?;
        if open == 0 || !is_alone {
            return nothing;
        }
        // Messages that had arrived before the answer are here by now, or settled.
        let here = self.messages_here(consumer);
        let settled = self.held.recent_acks.of_consumer(&consumer.durable, &consumer.id, ack_floor, last_delivered);
        let is_lost = |it: &u64| *it <= last_delivered && !here.contains(it) && !settled.contains(it);
        let request = ScanRequest::new(&consumer.stream, &consumer.filters, Start::At(ack_floor + 1)).headers_only();
        let mut scan = Scan::open(session, request).await?;
        let mut lost = Vec::new();
        let mut seen = 0;
        while seen < SCAN {
            let step = scan.next(session, STEP).await?;
            seen += step.len();
            lost.extend(step.iter().map(|message| message.sequence).filter(is_lost));
            if step.last().is_none_or(|last| last.sequence >= last_delivered) {
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

    /// The messages of a consumer that are here, held or in the buffer.
    fn messages_here(&self, consumer: &Consumer) -> HashSet<u64> {
        let _moves = self.held.lock_moves();
        let mut here = self.held.of_consumer(consumer, |_| true);
        here.extend(self.buffer.waiting(&consumer.id));
        here.extend(self.buffer.arriving(&consumer.id));
        here
    }
}
