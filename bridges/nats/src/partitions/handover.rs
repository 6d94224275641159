//! The hand-over of a partition, from the claim of its new owner to its release, as one state machine over plain data.
//!
//! 1. **Claim.** The member has become the owner in the record of [owners](super::assignment). Another member, or a session of this one that
//!    was lost, may have been delivered messages that nobody has settled.
//! 2. **Recover.** A session reads the consumer. The member gives the unsettled messages that are not here back to the server, which delivers
//!    them again, now to this member.
//! 3. **Barrier.** The member hands out nothing until it has all delivered and unsettled messages. JetStream reports only their number
//!    (`num_ack_pending`), so the member counts those that it had before the question and still has after the answer. If the numbers are equal,
//!    the messages are the same.
//! 4. **Deliver.** The member hands out messages in the order of the stream. A gap in the numbers of the consumer's deliveries shows that another
//!    client got a message; a message that was given back comes again behind newer ones. Both lead to the barrier, a new session to recovery.
//! 5. **Release.** The member reads the partition no more: its claim is surplus or lost, or its subscription ends or has no room. It gives back
//!    the messages that wait here. The [claims](super::claims) release the partition in the record when none of its messages is here. An owner
//!    that reads the partition again begins with recovery.
//!
//! Nothing here asks the server or reads a clock. The pull buffer and the pull loops feed a [`Handover`] with [`HandoverEvent`]s, and carry out
//! its [`HandoverEffect`]s. [`partitions`](super) has the map of the files.

/// A step of the hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Claimed,
    Recovering,
    Barrier {
        /// The number of messages that are not here, by the last count and the arrivals since.
        missing: Option<usize>,
        /// Redeliveries may come now: messages were given back, or the last arrival was a redelivery.
        comes_back: bool,
    },
    Delivering,
    Released,
}

/// An event of the hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandoverEvent {
    /// A session begins to read the partition.
    Connected,
    /// The messages that were not here were given back to the server.
    Recovered,
    /// A message has arrived: the number of its delivery among all of the consumer.
    Arrived { delivery: u64, is_redelivery: bool },
    /// A message of the partition went back to the server, or was lost in transit.
    GivenBack,
    /// The server was asked in a round of the barrier: `missing` messages are not here, and `deliveries` is the number of the last delivery.
    Counted { round: u64, missing: usize, deliveries: u64 },
    /// The partition is no longer read.
    Released,
}

/// The reaction to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandoverEffect {
    /// Give the messages that are not here back to the server; then comes [`HandoverEvent::Recovered`].
    Recover,
    /// Ask the server for the number of unsettled messages; then comes [`HandoverEvent::Counted`].
    Count,
    /// Hand out the messages that have arrived, in their order, and those that follow.
    Deliver,
    /// Give the messages that wait here back to the server.
    GiveBack,
}

/// The hand-over of a partition at its owner.
pub(crate) struct Handover {
    step: Step,
    /// The number of barriers so far. The answer to a count of an earlier one is void.
    round: u64,
    /// The last delivery of the consumer that has arrived or was counted.
    last: Option<u64>,
}

impl Handover {
    /// The member has claimed the partition.
    pub(crate) fn claimed() -> Self {
        Self { step: Step::Claimed, round: 0, last: None }
    }

    /// Takes an event, and returns the reaction to it.
    pub(crate) fn on(&mut self, event: HandoverEvent) -> Option<HandoverEffect> {
        match (event, self.step) {
            // Also after a release: a message may have arrived between.
            (HandoverEvent::Released, _) => {
                self.step = Step::Released;
                Some(HandoverEffect::GiveBack)
            }
            (HandoverEvent::Connected, _) => {
                (self.step, self.last) = (Step::Recovering, None);
                Some(HandoverEffect::Recover)
            }
            (_, Step::Released) => None,
            (HandoverEvent::Recovered, Step::Recovering) => Some(self.raise_barrier(true)),
            (HandoverEvent::Arrived { delivery, is_redelivery }, step) => {
                let has_gap = self.last.is_some_and(|last| delivery > last + 1);
                self.last = self.last.max(Some(delivery));
                match step {
                    // The message of the gap comes again later, when its client gives it back or its lease expires. So only this arrival shows
                    // whether redeliveries come now.
                    Step::Barrier { .. } | Step::Delivering if has_gap => Some(self.raise_barrier(is_redelivery)),
                    Step::Barrier { missing, .. } => {
                        let missing = missing.map(|it| it.saturating_sub(1));
                        self.step = Step::Barrier { missing, comes_back: is_redelivery };
                        Some(HandoverEffect::Count)
                    }
                    _ => None,
                }
            }
            (HandoverEvent::GivenBack, Step::Barrier { .. } | Step::Delivering) => Some(self.raise_barrier(true)),
            (HandoverEvent::Counted { round, missing, deliveries }, Step::Barrier { comes_back, .. })
                if round == self.round =>
            {
                if missing > 0 {
                    self.step = Step::Barrier { missing: Some(missing), comes_back };
                    return None;
                }
                (self.step, self.last) = (Step::Delivering, self.last.max(Some(deliveries)));
                Some(HandoverEffect::Deliver)
            }
            (HandoverEvent::Recovered | HandoverEvent::GivenBack | HandoverEvent::Counted { .. }, _) => None,
        }
    }

    fn raise_barrier(&mut self, comes_back: bool) -> HandoverEffect {
        self.round += 1;
        self.step = Step::Barrier { missing: None, comes_back };
        HandoverEffect::Count
    }

    /// Whether messages may be handed out.
    pub(crate) fn delivers(&self) -> bool {
        self.step == Step::Delivering
    }

    /// The round of the barrier, which waits for the answers to counts.
    pub(crate) fn round(&self) -> Option<u64> {
        matches!(self.step, Step::Barrier { .. }).then_some(self.round)
    }

    /// The number of messages to request at the barrier, if it is known. Redeliveries come first; while none arrives, one request is enough to see
    /// when they do, and newer messages would only pile up.
    pub(crate) fn to_request(&self) -> Option<usize> {
        match self.step {
            Step::Barrier { missing: Some(missing), comes_back } => Some(if comes_back { missing } else { 1 }),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrived(delivery: u64) -> HandoverEvent {
        HandoverEvent::Arrived { delivery, is_redelivery: false }
    }

    fn counted(round: u64, missing: usize) -> HandoverEvent {
        HandoverEvent::Counted { round, missing, deliveries: 10 }
    }

    /// A hand-over after these events.
    fn after(events: &[HandoverEvent]) -> Handover {
        let mut handover = Handover::claimed();
        events.iter().for_each(|event| _ = handover.on(*event));
        handover
    }

    /// A hand-over at the barrier of the first round.
    fn at_barrier() -> Handover {
        after(&[HandoverEvent::Connected, HandoverEvent::Recovered])
    }

    /// A hand-over that delivers; the last delivery was number 10.
    fn delivering() -> Handover {
        after(&[HandoverEvent::Connected, HandoverEvent::Recovered, counted(1, 0)])
    }

    #[test]
    fn a_claim_waits_for_a_session() {
        let mut handover = Handover::claimed();
        assert_eq!(handover.on(HandoverEvent::GivenBack), None);
        assert_eq!(handover.on(counted(0, 0)), None);
        assert!(!handover.delivers() && handover.round().is_none());
    }

    #[test]
    fn a_session_recovers_before_the_barrier() {
        let mut handover = Handover::claimed();
        assert_eq!(handover.on(HandoverEvent::Connected), Some(HandoverEffect::Recover));
        assert_eq!(handover.on(arrived(1)), None, "a message waits");
        assert_eq!(handover.on(HandoverEvent::GivenBack), None);
        assert_eq!(handover.round(), None, "nothing is counted before the recovery has ended");
        assert_eq!(handover.on(HandoverEvent::Recovered), Some(HandoverEffect::Count));
        assert_eq!(handover.round(), Some(1));
    }

    #[test]
    fn the_barrier_opens_when_no_message_is_missing() {
        let mut handover = at_barrier();
        assert_eq!(handover.on(counted(1, 2)), None);
        assert!(!handover.delivers());
        assert_eq!(handover.on(counted(1, 0)), Some(HandoverEffect::Deliver));
        assert!(handover.delivers() && handover.round().is_none());
    }

    #[test]
    fn an_arrival_at_the_barrier_is_one_message_less() {
        let mut handover = at_barrier();
        handover.on(counted(1, 3));
        assert_eq!(handover.to_request(), Some(3), "redeliveries are expected");
        assert_eq!(
            handover.on(HandoverEvent::Arrived { delivery: 5, is_redelivery: true }),
            Some(HandoverEffect::Count)
        );
        assert_eq!(handover.to_request(), Some(2));
        assert_eq!(handover.on(arrived(6)), Some(HandoverEffect::Count));
        assert_eq!(handover.to_request(), Some(1), "a newer message came first");
        assert!(!handover.delivers(), "only a count opens the barrier");
    }

    #[test]
    fn the_count_of_an_earlier_round_is_void() {
        let mut handover = at_barrier();
        assert_eq!(handover.on(HandoverEvent::GivenBack), Some(HandoverEffect::Count));
        assert_eq!(handover.on(counted(1, 0)), None);
        assert_eq!(handover.on(counted(2, 0)), Some(HandoverEffect::Deliver));
    }

    #[test]
    fn deliveries_in_sequence_keep_the_delivery_going() {
        let mut handover = delivering();
        assert_eq!(handover.on(arrived(11)), None);
        assert_eq!(handover.on(arrived(12)), None);
        assert!(handover.delivers());
    }

    #[test]
    fn a_gap_in_the_deliveries_raises_the_barrier() {
        let mut handover = delivering();
        assert_eq!(handover.on(arrived(12)), Some(HandoverEffect::Count));
        assert_eq!((handover.delivers(), handover.round(), handover.to_request()), (false, Some(2), None));
    }

    #[test]
    fn a_gap_at_the_barrier_begins_another_round() {
        for (is_redelivery, to_request) in [(false, 1), (true, 2)] {
            let mut handover = at_barrier();
            assert_eq!(handover.on(arrived(5)), Some(HandoverEffect::Count));
            let with_gap = HandoverEvent::Arrived { delivery: 7, is_redelivery };
            assert_eq!(handover.on(with_gap), Some(HandoverEffect::Count));
            assert_eq!((handover.round(), handover.to_request()), (Some(2), None));
            assert_eq!(handover.on(counted(1, 0)), None, "it was asked before the gap");
            assert_eq!(handover.on(counted(2, 2)), None);
            assert_eq!(handover.to_request(), Some(to_request), "the message of the gap does not come at once");
        }
    }

    #[test]
    fn an_arrival_before_the_first_session_changes_nothing() {
        let mut handover = Handover::claimed();
        assert_eq!(handover.on(arrived(1)), None);
        assert_eq!(handover.on(arrived(3)), None, "a gap matters only to an owner that counts");
        assert!(!handover.delivers() && handover.round().is_none());
        assert_eq!(handover.on(HandoverEvent::Connected), Some(HandoverEffect::Recover));
    }

    #[test]
    fn a_recovery_ends_only_where_one_has_begun() {
        for (mut handover, round, delivers) in
            [(Handover::claimed(), None, false), (at_barrier(), Some(1), false), (delivering(), None, true)]
        {
            assert_eq!(handover.on(HandoverEvent::Recovered), None);
            assert_eq!((handover.round(), handover.delivers()), (round, delivers));
        }
    }

    #[test]
    fn a_count_matters_only_at_the_barrier() {
        for (mut handover, delivers) in [(after(&[HandoverEvent::Connected]), false), (delivering(), true)] {
            for round in [0, 1] {
                assert_eq!(handover.on(counted(round, 0)), None);
                assert_eq!(handover.on(counted(round, 5)), None);
            }
            assert_eq!((handover.round(), handover.delivers()), (None, delivers));
        }
    }

    #[test]
    fn a_message_that_goes_back_raises_the_barrier() {
        let mut handover = delivering();
        assert_eq!(handover.on(HandoverEvent::GivenBack), Some(HandoverEffect::Count));
        assert!(!handover.delivers());
    }

    #[test]
    fn a_new_session_recovers_from_every_step() {
        for mut handover in [Handover::claimed(), after(&[HandoverEvent::Connected]), at_barrier(), delivering()] {
            assert_eq!(handover.on(HandoverEvent::Connected), Some(HandoverEffect::Recover));
            assert!(!handover.delivers());
            assert_eq!(handover.on(arrived(99)), None, "the deliveries of another session are no gap");
        }
    }

    #[test]
    fn a_release_gives_back_from_every_step() {
        for mut handover in [Handover::claimed(), after(&[HandoverEvent::Connected]), at_barrier(), delivering()] {
            assert_eq!(handover.on(HandoverEvent::Released), Some(HandoverEffect::GiveBack));
            for event in [HandoverEvent::Recovered, arrived(11), HandoverEvent::GivenBack, counted(1, 0)] {
                assert_eq!(handover.on(event), None);
            }
            assert!(!handover.delivers() && handover.round().is_none());
            assert_eq!(
                handover.on(HandoverEvent::Released),
                Some(HandoverEffect::GiveBack),
                "a message came meanwhile"
            );
        }
    }

    #[test]
    fn a_released_partition_that_is_read_again_recovers() {
        let mut handover = at_barrier();
        handover.on(HandoverEvent::Released);
        assert_eq!(handover.on(HandoverEvent::Connected), Some(HandoverEffect::Recover));
        assert_eq!(handover.on(HandoverEvent::Recovered), Some(HandoverEffect::Count));
        assert_eq!(handover.on(counted(1, 0)), None, "it was asked before the release");
        assert_eq!(handover.on(counted(2, 0)), Some(HandoverEffect::Deliver));
    }
}
