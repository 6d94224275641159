//! Claiming for one subscription. A script claims the deliveries that go before new entries: released ones, expired leases of other
//! members, and those of a claim without a reply. Plain commands read new entries ([`reader`](super::reader)). With partitions the script does both,
//! because only a script sees in the same moment who owns the stream.

use std::sync::Arc;
use std::time::Instant;

use eventbroker::provider::BackendError;

use super::batch_reply::{BatchReply, NewEntry};
use super::claim_batch::{ClaimBatch, Claimed};
use super::reader::Reader;
use crate::partitions::{Claims, Sharing};
use crate::scripts::{CLAIM_DELIVERIES, Client, Layout, flag, millis};
use crate::subscriptions::{LocalSubscription, PatternHistory};

/// The most reads in a row that find hardly any match.
const READS: usize = 8;
/// The least entries of a read, unless they are too large: most of them may not match.
const LEAST: usize = 100;

/// The fields of [`Claimed`], in order.
type ClaimedFields = (usize, String, Vec<u8>, bool, u32, u32, Vec<u8>);

/// Claims for one subscription.
pub(super) struct Claimer {
    sharing: Sharing,
    pub(super) subscription: LocalSubscription,
    pub(super) claims: Claims,
    patterns: PatternHistory,
    budget: Budget,
    /// Whether it has claimed the deliveries that its consumer held before it began.
    has_begun: bool,
    /// Whether a claim got no reply: its deliveries may belong to this member without being in hand.
    is_unsure: bool,
    /// Whether a delivery may wait that goes before new entries.
    is_behind: bool,
    /// The last entry of the notify stream (key `bell`) when it was last read.
    notified: String,
}

/// How much a claim reads.
struct Budget {
    /// Bytes of events per claim.
    bytes: usize,
    /// Bytes of an event: the average of the last read.
    event_size: usize,
}

impl Budget {
    const MOST: usize = 4 << 20;
    /// Bytes of an event, before one was read.
    const UNKNOWN_SIZE: usize = 1 << 20;

    /// The most events that the rest of a claim reads.
    fn events(&self, batch: &ClaimBatch<'_>) -> usize {
        (batch.bytes / self.event_size).max(1)
    }

    fn spend(&mut self, batch: &mut ClaimBatch<'_>, events: usize, bytes: usize) {
        batch.bytes = batch.bytes.saturating_sub(bytes);
        if let Some(size) = bytes.checked_div(events) {
            self.event_size = size.max(1);
        }
    }

    /// A claim that takes half a lease reads less the next time, so that deliveries arrive within their leases.
    fn adapt(&mut self, is_late: bool) {
        self.bytes = if is_late { (self.bytes / 2).max(1) } else { (self.bytes * 2).min(Self::MOST) };
    }
}

impl Claimer {
    pub(super) fn new(sharing: Sharing, subscription: LocalSubscription) -> Self {
        let claims = Claims::new(sharing.clone(), Arc::clone(&subscription.xgroup));
        let (patterns, notified) = (PatternHistory::default(), String::new());
        let budget = Budget { bytes: Budget::MOST, event_size: Budget::UNKNOWN_SIZE };
        let (has_begun, is_unsure, is_behind) = (false, false, true);
        Self { sharing, subscription, claims, patterns, budget, has_begun, is_unsure, is_behind, notified }
    }

    /// Without room: a member that holds nothing is paused, and leaves its partitions to others; a member that holds something may have to
    /// give up some partitions.
    pub(super) fn release_idle(&mut self, client: &mut Client, others_return: bool) -> Result<(), BackendError> {
        if client.layout.partitions == 0 {
            return Ok(());
        }
        if self.sharing.held.streams(&self.subscription.xgroup).is_empty() {
            return self.claims.leave(client);
        }
        self.claims.claimable(client, others_return).map(drop)
    }

    /// Claims as many deliveries as there is room for. With `others_return`, because the server was away, expired holds of others count.
    pub(super) fn claim(
        &mut self,
        client: &mut Client,
        batch: &mut ClaimBatch<'_>,
        others_return: bool,
    ) -> Result<(), BackendError> {
        self.is_behind |= self.sharing.held.take_released(&self.subscription.xgroup) || batch.take_over;
        batch.bytes = self.budget.bytes;
        let before = batch.leases.len();
        let result = self.claim_all(client, batch, others_return);
        // The first lease is the oldest.
        let age = batch.leases.get(before).map(|lease| lease.asked.elapsed());
        let is_late = age.is_some_and(|age| age >= self.sharing.membership.lease_time / 2);
        self.budget.adapt(is_late);
        if is_late {
            // Other members may have taken over some of these. The next claim takes the rest again, in its order.
            self.sharing.held.remove_all(batch.leases.drain(before..).map(|lease| lease.token));
            (self.is_unsure, self.is_behind) = (self.has_begun, true);
        }
        if let Err(error) = &result {
            self.is_unsure = self.has_begun && !is_gone(error);
            self.is_behind = true;
        }
        result
    }

    fn claim_all(
        &mut self,
        client: &mut Client,
        batch: &mut ClaimBatch<'_>,
        others_return: bool,
    ) -> Result<(), BackendError> {
        if client.layout.partitions > 0 {
            let streams = self.claims.claimable(client, others_return)?.to_vec();
            if self.claims.take_has_gained() {
                // An earlier member of the same name may have held deliveries of the new partitions.
                (self.has_begun, self.is_behind) = (false, true);
            }
            batch.take_over |= self.is_behind;
            return self.claim_by_script(client, batch, &streams);
        }
        if self.is_behind || self.is_unsure || !self.has_begun {
            self.claim_by_script(client, batch, &[1])?;
        }
        for _ in 0..READS {
            if batch.bytes == 0 {
                break;
            }
            if batch.left == 0 || self.is_behind || !self.read(client, batch)? {
                return Ok(());
            }
        }
        // More entries are there, perhaps matching ones: the next claim must not wait.
        batch.note_last(&client.layout.streams[0], "0-0".to_owned());
        Ok(())
    }

    /// Claims by the script, from the streams of these numbers; with partitions new entries as well.
    fn claim_by_script(
        &mut self,
        client: &mut Client,
        batch: &mut ClaimBatch<'_>,
        numbers: &[usize],
    ) -> Result<(), BackendError> {
        let (member, lease, xgroup) =
            (self.sharing.membership.name(), millis(self.sharing.membership.lease_time), &self.subscription.xgroup);
        let (layout, count) = (Arc::clone(&client.layout), batch.left.min(self.budget.events(batch)).to_string());
        let earlier = match (self.has_begun, self.is_unsure) {
            (false, _) => "1",
            (true, true) => "2",
            (true, false) => "0",
        };
        let (read, owner) = if layout.partitions > 0 { ("1", &*self.sharing.membership.boot) } else { ("0", "") };
        let mut keys = vec![&*layout.prefix];
        keys.extend(numbers.iter().map(|number| &*layout.streams[number - 1]));
        let mut rest: Vec<String> = numbers.iter().map(usize::to_string).collect();
        if earlier != "0" {
            let in_hand = self.sharing.held.places(xgroup).into_iter();
            rest.extend(in_hand.flat_map(|(number, entry)| [number.to_string(), entry]));
        }
        let mut arguments = vec![&**xgroup, &member, &count, &lease, flag(batch.take_over), earlier, read, owner];
        arguments.extend(rest.iter().map(String::as_str));
        batch.asked = Instant::now();
        let (claimed, more, lasts): (Vec<ClaimedFields>, u64, Vec<String>) =
            client.run_on(&CLAIM_DELIVERIES, &keys, &arguments)?;
        self.is_behind = more > 0;
        if more < 2 {
            (self.has_begun, self.is_unsure) = (true, false);
        }
        let (mut events, mut size) = (0, 0);
        for (number, entry, event, is_suspect, crashes, attempts, errors) in claimed {
            let claimed = Claimed { number, entry, event, is_suspect, crashes, attempts, errors };
            (events, size) = (events + 1, size + claimed.event.len());
            batch.add(&self.sharing.held, xgroup, claimed);
        }
        self.budget.spend(batch, events, size);
        self.is_behind |= batch.put_aside(client, xgroup)?;
        let mut lasts = lasts.into_iter();
        let notified = lasts.next().unwrap_or_default();
        if notified != self.notified {
            self.claims.renew_soon();
        }
        for (key, last) in keys[1..].iter().zip(lasts) {
            batch.note_last(key, last);
        }
        batch.note_last(&layout.key("bell"), notified.clone());
        self.notified = notified;
        Ok(())
    }

    /// Reads new entries. False if there are no more.
    fn read(&mut self, client: &mut Client, batch: &mut ClaimBatch<'_>) -> Result<bool, BackendError> {
        let most = batch.left.max(LEAST).min(self.budget.events(batch));
        let (layout, xgroup) = (Arc::clone(&client.layout), Arc::clone(&self.subscription.xgroup));
        let (member, notified) = (self.sharing.membership.name(), self.notified.clone());
        let reader = Reader { xgroup: &xgroup, member: &member, notified: &notified };
        let (mut size, mut damaged) = (0, None);
        batch.asked = Instant::now();
        let found = reader.read_new(client, most, |reply| {
            size += reply.entries.iter().map(|entry| entry.event.len()).sum::<usize>();
            if let Err(error) = self.take(&layout, batch, reply) {
                damaged = Some(error);
            }
            damaged.is_none()
        })?;
        self.budget.spend(batch, found, size);
        self.is_behind |= batch.put_aside(client, &xgroup)?;
        damaged.map_or(Ok(found >= most), Err)
    }

    /// Takes a reply, while the server works on the next one.
    fn take(&mut self, layout: &Layout, batch: &mut ClaimBatch<'_>, reply: BatchReply) -> Result<(), BackendError> {
        let xgroup = &self.subscription.xgroup;
        // The next claim takes deliveries that are released from now on.
        self.is_behind |= reply.was_notified;
        self.patterns.update(reply.record)?;
        batch.note_last(&layout.streams[0], reply.last);
        batch.note_last(&layout.key("bell"), self.notified.clone());
        // A delivery that was released meanwhile goes before these entries.
        let is_overtaken = self.sharing.held.has_released(xgroup);
        for NewEntry { is_redelivery, id, event_type, event, attempts, errors } in reply.entries {
            let number = usize::from(!is_redelivery);
            if !is_redelivery && !self.patterns.matches(number, &id, &event_type) {
                batch.add_non_matching(number, id);
            } else if batch.left == 0 || is_overtaken {
                batch.add_surplus(number, id);
            } else {
                let attempts = str::from_utf8(&attempts).ok().and_then(|text| text.parse().ok()).unwrap_or(0);
                let claimed = Claimed { number, entry: id, event, is_suspect: false, crashes: 0, attempts, errors };
                batch.add(&self.sharing.held, xgroup, claimed);
            }
        }
        Ok(())
    }
}

/// Whether the error is that a consumer group or its stream is not there.
pub(super) fn is_gone(error: &BackendError) -> bool {
    error.to_string().contains("NOGROUP")
}
