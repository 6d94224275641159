//! The sorting of verdicts: those that an acknowledgement says, those that need records, and those of lost leases.

use std::collections::{HashMap, HashSet};

use eventbroker::provider::{LeaseOutcome, LeaseToken};

use super::outcome::Ended;
use super::pending_acks::AckBatch;
use crate::jetstream::Ack;
use crate::jetstream::ack::{ACK, NAK};
use crate::subscriptions::HeldMessage;

/// The verdicts of a call, sorted.
#[derive(Default)]
pub(crate) struct Verdicts {
    /// Those that an acknowledgement says.
    pub(crate) plain: AckBatch,
    /// Those that need records beside the acknowledgement.
    pub(crate) ended: Vec<Ended>,
    pub(crate) ended_acks: Vec<Ack>,
    /// The leases that are not held.
    pub(crate) lost: Vec<LeaseToken>,
}

/// Sorts the verdicts of held messages, without those that were sent before. From now on the messages count as ending. If `records_all`, an
/// acknowledgement alone never suffices.
pub(crate) fn sort_verdicts<'a>(
    verdicts: impl IntoIterator<Item = (LeaseToken, &'a LeaseOutcome)>,
    held: &mut HashMap<u64, HeldMessage>,
    sent: &HashSet<u64>,
    records_all: bool,
) -> Verdicts {
    let mut sorted = Verdicts::default();
    for (LeaseToken(token), outcome) in verdicts {
        if sent.contains(&token) {
            continue;
        }
        let Some(message) = held.get_mut(&token) else {
            sorted.lost.push(LeaseToken(token));
            continue;
        };
        message.is_ending = true;
        let needs_records = records_all || message.consumer.is_requeue || message.delivery.info.is_recorded;
        let verb = match outcome {
            LeaseOutcome::Done { attempts } if *attempts <= 1 && !needs_records => {
                sorted.plain.acks.push(message.ack(ACK));
                sorted.plain.tokens.push(token);
                continue;
            }
            LeaseOutcome::Done { .. } | LeaseOutcome::Dead { .. } => ACK,
            _ => NAK,
        };
        sorted.ended_acks.push(message.ack(verb));
        sorted.ended.push(Ended { token, held: message.clone(), outcome: outcome.clone() });
    }
    sorted
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Instant, SystemTime};

    use eventbroker::{Event, Source};

    use super::*;
    use crate::jetstream::{KeyValue, Layout};
    use crate::settings::Nats;
    use crate::subscriptions::{PulledDelivery, RedeliveryInfo, SubscriptionRecord};

    /// A held message of the consumer of events, or of the one of requeues.
    fn held(is_requeue: bool, is_recorded: bool) -> HeldMessage {
        let settings = Nats::new("nats://localhost");
        let record = SubscriptionRecord { pattern: "*".to_owned(), ..SubscriptionRecord::default() };
        let mut consumers = record.consumers(&Layout::new(&settings), &KeyValue::new(&settings), "workers==all");
        HeldMessage {
            consumer: Arc::new(consumers.swap_remove(usize::from(!is_requeue))),
            name: Arc::from("all"),
            requeues: 0,
            delivery: PulledDelivery {
                sequence: 1,
                stored_at: SystemTime::UNIX_EPOCH,
                reply: Arc::from("$JS.ACK.S.C.1.1.1.0.0"),
                times_delivered: 1,
                number: 1,
                generation: 1,
                leased_at: Instant::now(),
                info: RedeliveryInfo { is_recorded, ..RedeliveryInfo::default() },
            },
            is_ending: false,
            is_late: false,
            event: Event::builder(Source::System, "shop.orders.create").build().expect("an event"),
        }
    }

    #[test]
    fn verdicts_are_sorted_by_what_they_need() {
        let done = LeaseOutcome::Done { attempts: 1 };
        let tried = LeaseOutcome::Done { attempts: 2 };
        let mut messages: HashMap<u64, HeldMessage> =
            [(1, held(false, false)), (2, held(true, false)), (3, held(false, true)), (4, held(false, false))]
                .into_iter()
                .chain([(5, held(false, false)), (6, held(false, false))])
                .collect();
        let outcomes = [&done, &done, &done, &tried, &LeaseOutcome::Released, &done, &done];
        let verdicts = || (1..).map(LeaseToken).zip(outcomes);
        let sorted = sort_verdicts(verdicts(), &mut messages, &HashSet::from([6]), false);
        assert_eq!(sorted.plain.tokens, [1]);
        assert_eq!(sorted.ended.iter().map(|it| it.token).collect::<Vec<_>>(), [2, 3, 4, 5]);
        assert_eq!(sorted.ended_acks.iter().map(|ack| ack.verb).collect::<Vec<_>>(), [ACK, ACK, ACK, NAK]);
        assert_eq!(sorted.lost, [LeaseToken(7)]);
        assert!(messages[&5].is_ending && !messages[&6].is_ending, "the sixth was sent before");
        let sorted = sort_verdicts(verdicts().take(1), &mut messages, &HashSet::new(), true);
        assert!(sorted.plain.tokens.is_empty() && sorted.ended.len() == 1);
    }
}
