//! The result of one claim, as it grows.

use std::collections::BTreeMap;
use std::mem;
use std::sync::Arc;
use std::time::Instant;

use eventbroker::provider::{BackendError, Demand, Lease};
use eventbroker_bridge_kit::dead_letter::from_stored;

use crate::scripts::{Client, earliest, from_json};
use crate::subscriptions::{HeldDeliveries, HeldDelivery};

/// The last entry of each stream, by its key, as of the claim. Later entries are new.
pub(super) type Lasts = BTreeMap<String, String>;

/// The request and the result of one claim.
pub(super) struct ClaimBatch<'a> {
    pub(super) demand: &'a Demand,
    /// Whether expired leases of other members are taken over.
    pub(super) take_over: bool,
    /// The number of deliveries that still have room.
    pub(super) left: usize,
    /// Bytes of events that may still be read.
    pub(super) bytes: usize,
    /// The time of the last request to the server.
    pub(super) asked: Instant,
    /// The claimed deliveries, also if the claim fails in the end.
    pub(super) leases: &'a mut Vec<Lease>,
    pub(super) lasts: &'a mut Lasts,
    /// Entries that do not match, by the number of their stream. They are acknowledged.
    non_matching: BTreeMap<usize, Vec<String>>,
    /// Entries without room, of the redelivery stream and of the main stream. They are released.
    surplus: [Vec<String>; 2],
}

/// A delivery as the server returns it.
pub(super) struct Claimed {
    pub(super) number: usize,
    pub(super) entry: String,
    pub(super) event: Vec<u8>,
    pub(super) is_suspect: bool,
    pub(super) crashes: u32,
    /// Of a deferred retry: the number of attempts, and their errors as JSON.
    pub(super) attempts: u32,
    pub(super) errors: Vec<u8>,
}

impl<'a> ClaimBatch<'a> {
    pub(super) fn new(demand: &'a Demand, take_over: bool, leases: &'a mut Vec<Lease>, lasts: &'a mut Lasts) -> Self {
        Self {
            demand,
            take_over,
            left: demand.deliveries,
            bytes: 0,
            asked: Instant::now(),
            leases,
            lasts,
            non_matching: BTreeMap::new(),
            surplus: Default::default(),
        }
    }

    /// Notes the last entry of a stream as of a read. The earliest counts.
    pub(super) fn note_last(&mut self, key: &str, last: String) {
        let last = match self.lasts.remove(key) {
            Some(other) => earliest(other, last),
            None => last,
        };
        self.lasts.insert(key.to_owned(), last);
    }

    pub(super) fn add_non_matching(&mut self, number: usize, entry: String) {
        self.non_matching.entry(number).or_default().push(entry);
    }

    pub(super) fn add_surplus(&mut self, number: usize, entry: String) {
        self.surplus[number].push(entry);
    }

    /// Adds a delivery. An entry that is no event is acknowledged, so that it does not block the others.
    pub(super) fn add(&mut self, held: &HeldDeliveries, xgroup: &Arc<str>, claimed: Claimed) {
        self.left = self.left.saturating_sub(1);
        let Claimed { number, entry, event, is_suspect, crashes, attempts, errors } = claimed;
        let event = match from_json(&event) {
            Ok(event) => event,
            Err(error) => {
                tracing::warn!(entry, %error, "an entry of the stream is no event");
                if number > 0 {
                    self.add_non_matching(number, entry);
                }
                return;
            }
        };
        let xgroup = Arc::clone(xgroup);
        let delivery = HeldDelivery { xgroup, number, entry, is_suspect, is_removed: false, event: event.clone() };
        let token = held.insert(delivery);
        let lease = Lease::new(token, Arc::clone(&self.demand.subscription), event).asked_at(self.asked);
        let lease = if is_suspect { lease.suspected(crashes) } else { lease };
        let tried = || from_stored(serde_json::from_slice(&errors).unwrap_or_default());
        self.leases.push(if attempts > 0 { lease.tried(attempts, tried()) } else { lease });
    }

    /// Releases the surplus and acknowledges the entries that do not match. Returns whether there was a surplus.
    pub(super) fn put_aside(&mut self, client: &mut Client, xgroup: &str) -> Result<bool, BackendError> {
        let mut commands = redis::pipe();
        let surplus = mem::take(&mut self.surplus);
        let has_surplus = surplus.iter().any(|entries| !entries.is_empty());
        for (number, entries) in surplus.into_iter().enumerate().filter(|(_, entries)| !entries.is_empty()) {
            let claim = commands.cmd("XCLAIM").arg(client.layout.delivery_stream(xgroup, number)).arg(xgroup);
            claim.arg("released").arg(0).arg(entries).arg("JUSTID").ignore();
        }
        for (number, entries) in mem::take(&mut self.non_matching) {
            commands.cmd("XACK").arg(client.layout.delivery_stream(xgroup, number)).arg(xgroup).arg(entries).ignore();
        }
        client.send(&commands)?;
        Ok(has_surplus)
    }
}
