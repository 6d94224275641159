//! The leases of this provider: the size of the claims that make them, and their rows of the deliveries' table.

use std::collections::HashMap;
use std::time::Duration;

use eventbroker::provider::{LeaseOutcome, LeaseToken, Settlement};
use parking_lot::Mutex;

/// The number of rows that a claim reads behind rows of leased keys.
pub(crate) const CLAIM_DEPTH: i32 = 10_000;

/// The most and the fewest deliveries of a subscription that one claim takes.
const LARGEST_CLAIM: usize = 1_024;
const SMALLEST_CLAIM: usize = 8;

/// The size of claims. The claims of all members of a subscription follow each other, and a lease counts from the request for it. So members
/// that claim as much as they have room for could make each other wait until every lease is lost on arrival, is given back and is claimed
/// again. A claim that took long halves the next one.
#[derive(Debug)]
pub(crate) struct ClaimSize(usize);

impl ClaimSize {
    pub(crate) fn new() -> Self {
        Self(LARGEST_CLAIM)
    }

    /// The number of deliveries to claim if there is room for `room`.
    pub(crate) fn within(&self, room: usize) -> usize {
        room.min(self.0)
    }

    /// Records how long a claim took: an eighth of the lease time is long, a sixteenth is short.
    pub(crate) fn record(&mut self, took: Duration, lease_time: Duration) {
        if took > lease_time / 8 {
            self.0 = (self.0 / 2).max(SMALLEST_CLAIM);
        } else if took < lease_time / 16 {
            self.0 = (self.0 * 2).min(LARGEST_CLAIM);
        }
    }
}

/// A row of the deliveries' table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeliveryRow {
    pub(crate) position: i64,
    pub(crate) subscription: i64,
}

/// The row of each lease that is held, by its token.
#[derive(Debug, Default)]
pub(crate) struct Leases(Mutex<HashMap<u64, DeliveryRow>>);

impl Leases {
    pub(crate) fn insert(&self, leases: impl IntoIterator<Item = (LeaseToken, DeliveryRow)>) {
        self.0.lock().extend(leases.into_iter().map(|(token, row)| (token.0, row)));
    }

    pub(crate) fn row(&self, token: LeaseToken) -> Option<DeliveryRow> {
        self.0.lock().get(&token.0).copied()
    }

    /// The tokens whose leases are held, with their rows.
    pub(crate) fn held(&self, tokens: &[LeaseToken]) -> Vec<(LeaseToken, DeliveryRow)> {
        let leases = self.0.lock();
        tokens.iter().filter_map(|token| Some((*token, *leases.get(&token.0)?))).collect()
    }

    /// Splits settlements into those whose leases are held, with their rows, and the tokens of the others.
    pub(crate) fn split<'a>(
        &self,
        settlements: &'a [Settlement],
    ) -> (Vec<(&'a Settlement, DeliveryRow)>, Vec<LeaseToken>) {
        let leases = self.0.lock();
        let (mut held, mut lost) = (Vec::with_capacity(settlements.len()), Vec::new());
        for settlement in settlements {
            match leases.get(&settlement.token.0) {
                Some(row) => held.push((settlement, *row)),
                None => lost.push(settlement.token),
            }
        }
        (held, lost)
    }

    /// Forgets the leases that were settled. Returns whether any of them was given back.
    pub(crate) fn end(&self, settlements: &[Settlement]) -> bool {
        let mut leases = self.0.lock();
        settlements.iter().for_each(|it| _ = leases.remove(&it.token.0));
        settlements.iter().any(|it| it.outcome == LeaseOutcome::Released)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEASE: Duration = Duration::from_secs(16);

    #[test]
    fn slow_claims_become_small_and_fast_ones_large_again() {
        let mut size = ClaimSize::new();
        assert_eq!((size.within(5_000), size.within(3)), (1_024, 3));
        size.record(Duration::from_secs(3), LEASE);
        assert_eq!(size.within(5_000), 512);
        size.record(Duration::from_millis(1_500), LEASE);
        assert_eq!(size.within(5_000), 512, "neither long nor short");
        (0..20).for_each(|_| size.record(Duration::from_secs(3), LEASE));
        assert_eq!(size.within(5_000), 8);
        (0..20).for_each(|_| size.record(Duration::from_millis(10), LEASE));
        assert_eq!(size.within(5_000), 1_024);
    }
}
