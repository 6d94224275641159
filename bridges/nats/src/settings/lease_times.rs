//! The moments of a lease, as fractions of the lease time. Members judge them by their own monotonic clocks, so no clocks are compared.
//!
//! | after | of | what happens |
//! |---|---|---|
//! | 1/8 | the last poll | the member polls the other members' claims at the latest |
//! | 1/6 | the last renewal | the member renews a claim |
//! | 1/3 | the last renewal | the claim is stale: the member hands out nothing of it |
//! | 1/3 | the last extension | the core extends a lease |
//! | 1/2 | the last heartbeat | the member sends the next one |
//! | 1/2 | the pull request | a request for messages of a partition expires |
//! | 1/2 | the last extension | a partition with such a lease gets no more messages |
//! | 0.6 | the delivery | a message that waited so long is not handed out |
//! | 0.6 | the last extension | an extension is late: the core may have given the lease up |
//! | 2/3 | the last extension | the core begins no call of the lease |
//! | 0.7 | the last heartbeat of the process | the process has slept: its messages may belong to others |
//! | 1 | the last heartbeat of a member | the member is dead: another one takes its partitions and messages |

use std::time::{Duration, Instant};

/// The moments of a lease of this length.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseTimes {
    pub(crate) lease: Duration,
}

impl LeaseTimes {
    /// The longest time between two polls of the claims.
    pub(crate) fn poll_claims_every(self) -> Duration {
        self.lease / 8
    }

    /// The time between two renewals of a claim: early enough to hand out messages after it.
    pub(crate) fn renew_claims_every(self) -> Duration {
        self.lease / 6
    }

    /// Whether a claim that was renewed at a time allows the hand-out.
    pub(crate) fn is_fresh_claim(self, renewed: Instant) -> bool {
        renewed.elapsed() < self.lease / 3
    }

    pub(crate) fn heartbeat_every(self) -> Duration {
        self.lease / 2
    }

    /// The expiry of a pull request. A shorter one limits how many messages a stalled member can hold; with partitions it is over before another
    /// member takes over.
    pub(crate) fn pull_expiry(self, has_partitions: bool) -> Duration {
        let longest = Duration::from_secs(5);
        if has_partitions { (self.lease / 2).min(longest) } else { self.lease.clamp(Duration::from_secs(1), longest) }
    }

    /// Whether a lease without an extension for this time stops its partition: the core may give it up soon.
    pub(crate) fn stops_partition(self, since_extension: Duration) -> bool {
        since_extension >= self.lease / 2
    }

    /// Whether a delivery, or an extension, at a time is too old for a hand-out, or for an extension in time.
    pub(crate) fn is_late(self, leased_at: Instant) -> bool {
        leased_at.elapsed() >= self.lease.mul_f64(0.6)
    }

    /// Whether a process whose last heartbeat was at a time has slept.
    pub(crate) fn has_slept(self, heartbeat: Instant) -> bool {
        heartbeat.elapsed() > self.lease.mul_f64(0.7)
    }
}
