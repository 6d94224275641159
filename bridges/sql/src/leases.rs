//! The leases that this provider holds, as rows of the deliveries' table.

use std::collections::HashMap;

use eventbroker::provider::{LeaseOutcome, LeaseToken, Settlement};
use parking_lot::Mutex;

/// The number of rows that a claim reads behind rows of leased keys.
pub(crate) const CLAIM_DEPTH: i32 = 10_000;

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
