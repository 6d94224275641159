//! The hand-out: makes leases of the messages in the pull buffer, and requests more.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use eventbroker::provider::{Demand, Lease, LeaseToken};

use super::pull_loop::Puller;
use super::pull_state::PulledMessage;
use crate::jetstream::ack::{ACK, ack_all};
use crate::jetstream::entry::{from_json, is_mark, is_ours};
use crate::jetstream::kv::{self, AT};
use crate::jetstream::{Ack, Consumer, Layout};
use crate::partitions::{HandoverEvent, Participation, Selection};
use crate::subscriptions::{GiveBack, HeldMessage, MessageKey, PulledDelivery, Subscriptions, give_back};

/// The header with the number of times that the event was requeued.
pub(crate) const REQUEUES: &str = "Requeues";

/// Hands out messages as leases.
pub(crate) struct HandOut {
    layout: Arc<Layout>,
    subscriptions: Arc<Subscriptions>,
    puller: Arc<Puller>,
    pub(crate) selection: Selection,
    /// The last message of each consumer that was handed out.
    highest: HashMap<Arc<str>, u64>,
    /// Messages of partitions that had other owners since.
    to_give_back: Vec<GiveBack>,
}

/// The messages of a step that are not handed out, and other duties of the step.
#[derive(Default)]
struct Rest {
    acks: Vec<Ack>,
    back: Vec<GiveBack>,
    /// Messages that match no pattern: another member may have changed the pattern of the subscription.
    unmatched: Vec<GiveBack>,
    /// The places of events that other programs have published.
    places: Vec<(String, Vec<u8>)>,
}

impl HandOut {
    pub(crate) fn new(
        layout: &Arc<Layout>,
        subscriptions: &Arc<Subscriptions>,
        puller: &Arc<Puller>,
        selection: Selection,
    ) -> Self {
        let (layout, subscriptions, puller) = (Arc::clone(layout), Arc::clone(subscriptions), Arc::clone(puller));
        Self { layout, subscriptions, puller, selection, highest: HashMap::new(), to_give_back: Vec::new() }
    }

    /// Updates the selection of partitions. Drops the state of a gained partition, so that it begins a new hand-over.
    pub(crate) fn select(&mut self, demand: &[Demand], has_messages_here: impl Fn(&str) -> bool) {
        if !self.layout.has_partitions() {
            return;
        }
        // A paused subscription without messages here takes no part, so that other members get its partitions.
        let has_demand = |name: &Arc<str>| demand.iter().any(|demand| demand.subscription == *name);
        let participations = self.subscriptions.local().into_iter().map(|(name, it)| {
            let takes_part = has_demand(&name) || has_messages_here(&it.durable);
            Participation { durable: it.durable, takes_part }
        });
        let gained = self.selection.update(participations.collect());
        if !gained.is_empty() {
            let is_gained = |consumer: &Consumer| {
                gained.iter().any(|(durable, it)| *durable == consumer.durable && Some(*it) == consumer.partition)
            };
            self.to_give_back.extend(self.puller.buffer.drop_all(is_gained));
        }
    }

    /// Hands out messages, and requests more.
    pub(crate) fn step(&mut self, demand: &[Demand]) -> Vec<Lease> {
        let puller = Arc::clone(&self.puller);
        let buffer = &puller.buffer;
        buffer.note_session(puller.runtime.generation());
        let selection = &mut self.selection;
        let served: HashMap<Arc<str>, (String, Vec<Arc<Consumer>>)> = (self.subscriptions.local().into_iter())
            .map(|(name, it)| (name, (it.durable.clone(), selection.consumers(&it))))
            .collect();
        let durables: HashSet<&str> = served.values().map(|(durable, _)| durable.as_str()).collect();
        let selected: HashSet<&str> = served.values().flat_map(|(_, consumers)| consumers).map(|it| &*it.id).collect();
        let rooms: HashMap<&str, HashMap<u32, usize>> =
            durables.iter().map(|durable| (*durable, self.selection.rooms(durable))).collect();
        let (mut leases, mut pulls, mut rest, mut roomy) = (Vec::new(), Vec::new(), Rest::default(), HashSet::new());
        let moves = puller.held.lock_moves();
        // Read when a message may be held already.
        let mut held: Option<HashSet<MessageKey>> = None;
        for demand in demand {
            let Some((durable, consumers)) = served.get(&demand.subscription) else { continue };
            roomy.insert(durable.as_str());
            let taken = buffer.take(consumers, demand.deliveries, &rooms[durable.as_str()], &mut pulls);
            for (consumer, pulled) in taken {
                let PulledDelivery { sequence, stored_at, times_delivered, leased_at, .. } = pulled.delivery;
                let key = || -> MessageKey { (Arc::clone(&consumer.id), sequence, stored_at) };
                let highest = self.highest.entry(Arc::clone(&consumer.id)).or_default();
                let may_be_known = times_delivered > 1 || sequence <= *highest;
                *highest = sequence.max(*highest);
                // A redelivered message may be held, or its acknowledgement may have been lost.
                if may_be_known && held.is_none() {
                    held = Some(puller.held.keys());
                }
                if held.as_mut().is_some_and(|held| !held.insert(key())) {
                    continue;
                }
                if may_be_known && puller.held.recent_acks.contains(durable, &key()) {
                    rest.acks.push(pulled.delivery.ack(&consumer, ACK));
                    continue;
                }
                let lease = self.lease(&demand.subscription, &consumer, pulled, &mut rest);
                leases.extend(lease.map(|lease| (leased_at, lease)));
            }
        }
        drop(moves);
        let is_read = |it: &Consumer| {
            durables.contains(it.durable.as_str()) && (it.partition.is_none() || selected.contains(&*it.id))
        };
        rest.back.append(&mut self.to_give_back);
        rest.back.extend(buffer.take_to_give_back(is_read, |durable| roomy.contains(durable)));
        if !pulls.is_empty() {
            puller.pull(pulls);
        }
        self.send(rest);
        puller.post_counts();
        self.without_stale(leases)
    }

    /// Makes a lease of a message; `None` if it is not for this subscription. A message that is no event is only acknowledged: another program has
    /// published it, so it gets no dead letter.
    fn lease(
        &self,
        name: &Arc<str>,
        consumer: &Arc<Consumer>,
        pulled: PulledMessage,
        rest: &mut Rest,
    ) -> Option<Lease> {
        let PulledMessage { subject, headers, payload, delivery } = pulled;
        let PulledDelivery { sequence, info, .. } = delivery;
        if !consumer.is_requeue && is_mark(&self.layout, &subject) {
            rest.acks.push(delivery.ack(consumer, ACK));
            return None;
        }
        let event = match from_json(&payload) {
            Ok(event) => event,
            Err(error) => {
                // It must not block the others.
                let subject = subject.as_str();
                tracing::warn!(subject, sequence, %error, "a message of the stream is no event, and is skipped");
                rest.acks.push(delivery.ack(consumer, ACK));
                return None;
            }
        };
        if let Some((until, pattern)) = consumer.pattern_at(sequence)
            && !pattern.matches(event.event_type().as_str())
        {
            if *until == u64::MAX {
                rest.unmatched.push(delivery.to_give_back(consumer));
            } else {
                rest.acks.push(delivery.ack(consumer, ACK));
            }
            return None;
        }
        if !consumer.is_requeue && !is_ours(&headers) {
            rest.places.push((self.puller.kv.event_key(AT, event.id()), kv::write(&sequence)));
        }
        let requeues = if consumer.is_requeue { headers.get(REQUEUES) } else { None };
        let token = self.puller.held.add(HeldMessage {
            consumer: Arc::clone(consumer),
            name: Arc::clone(name),
            requeues: requeues.and_then(|text| text.parse().ok()).unwrap_or(0),
            delivery: PulledDelivery { leased_at: Instant::now(), ..delivery },
            is_ending: false,
            is_late: false,
            event: event.clone(),
        });
        let lease = Lease::new(LeaseToken(token), Arc::clone(name), event);
        Some(if info.is_suspect { lease.suspected(info.record.crashes) } else { lease })
    }

    /// Sends the acknowledgements and records of a step, without a wait. If that fails, the messages come again when their leases have expired.
    fn send(&self, rest: Rest) {
        let Rest { mut acks, mut back, unmatched, places } = rest;
        if acks.is_empty() && back.is_empty() && unmatched.is_empty() && places.is_empty() {
            return;
        }
        let (puller, subscriptions) = (Arc::clone(&self.puller), Arc::clone(&self.subscriptions));
        self.puller.runtime.post(move |session| {
            let session = session.ok()?;
            Some(Box::pin(async move {
                let work = async {
                    let mut current = HashMap::new();
                    for it in unmatched {
                        let durable = it.consumer.durable.clone();
                        if !current.contains_key(&durable) {
                            let is_current = subscriptions.is_current(&session, &durable).await?;
                            current.insert(durable.clone(), is_current);
                        }
                        if current[&durable] {
                            acks.push(Ack { verb: ACK, ..it.nak });
                        } else {
                            puller.buffer.on(&it.consumer.id, HandoverEvent::GivenBack);
                            back.push(it);
                        }
                    }
                    ack_all(&session, &acks).await?;
                    give_back(&session, &puller.kv, back).await?;
                    puller.kv.put_all(&session, places).await
                };
                if let Err(error) = work.await {
                    tracing::debug!(%error, "messages were not given back; they come again");
                }
            }))
        });
    }

    /// Drops all leases if this process has slept over one of them: the messages belong to other members by now, or come again in their order.
    fn without_stale(&self, leases: Vec<(Instant, Lease)>) -> Vec<Lease> {
        let Puller { buffer, held, runtime, times, .. } = &*self.puller;
        if !leases.iter().any(|(leased_at, _)| times.is_late(*leased_at)) && self.selection.is_fresh() {
            return leases.into_iter().map(|(_, lease)| lease).collect();
        }
        let mut held = held.lock();
        let gone: Vec<HeldMessage> = leases.iter().filter_map(|(_, lease)| held.remove(&lease.token.0)).collect();
        drop(held);
        if self.layout.has_partitions() {
            let consumers: HashSet<&str> = gone.iter().map(|held| &*held.consumer.id).collect();
            consumers.iter().for_each(|id| _ = buffer.on(id, HandoverEvent::GivenBack));
        } else {
            buffer.forget(runtime.generation());
            runtime.give_up("the process has slept");
        }
        Vec::new()
    }

    /// Ends the hand-out: gives back the messages in the buffer.
    pub(crate) fn close(&self) {
        let back = self.puller.buffer.drop_all(|_| true);
        if let Err(error) = self.puller.give_back_now(back) {
            tracing::debug!(%error, "messages were not given back; they come again when their leases have expired");
        }
    }
}
