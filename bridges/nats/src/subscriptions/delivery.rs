//! A delivery to this provider, from its arrival until its verdict is sent.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::lease_record::{GiveBack, RedeliveryInfo};
use crate::jetstream::ack::NAK;
use crate::jetstream::{Ack, Consumer};

/// A delivery to this provider.
#[derive(Debug, Clone)]
pub(crate) struct PulledDelivery {
    pub(crate) sequence: u64,
    pub(crate) stored_at: SystemTime,
    /// The subject of its acknowledgement.
    pub(crate) reply: Arc<str>,
    /// The number of deliveries of the message, with this one.
    pub(crate) times_delivered: u64,
    /// The number of this delivery among all of the consumer.
    pub(crate) number: u64,
    /// The session that it arrived in.
    pub(crate) generation: u64,
    /// The start of its lease, or of the last extension.
    pub(crate) leased_at: Instant,
    pub(crate) info: RedeliveryInfo,
}

impl PulledDelivery {
    pub(crate) fn ack(&self, consumer: &Consumer, verb: &'static [u8]) -> Ack {
        let (consumer, to) = (Arc::clone(&consumer.id), Arc::clone(&self.reply));
        Ack { consumer, to, verb, generation: self.generation }
    }

    pub(crate) fn to_give_back(&self, consumer: &Arc<Consumer>) -> GiveBack {
        GiveBack {
            consumer: Arc::clone(consumer),
            sequence: self.sequence,
            times_delivered: self.times_delivered,
            record: self.info.record,
            nak: self.ack(consumer, NAK),
        }
    }
}
