//! This broker, with default settings.

use std::time::Duration;

use eventbroker::{Broker, Event, Overflow, Payload, Source, SubscribeOptions};

use super::{Rival, Role};
use crate::harness::{EVENT_TYPE, Events, PATTERN, Shape, Work, other_pattern, payload_json};

/// How long a publish blocks on a full queue.
const PATIENCE: Duration = Duration::from_secs(30);
/// Events in a batch.
const BATCH: usize = 64;

/// How events are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// `publish` with a payload that was validated once.
    Publish,
    /// A `Publisher` of the type.
    Publisher,
    /// `publish`, with every payload validated from bytes.
    RawBytes,
    /// `publish_batch`.
    Batch,
    /// `publish` without `Overflow::Block`: a rejected event is published again after a `yield_now`.
    Again,
}

/// This broker as a contestant.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ours {
    way: Way,
    /// Subscriptions beside the matching ones.
    others: usize,
    /// Whether events are counted by type.
    metrics: bool,
}

impl Rival for Ours {
    fn name(&self) -> &'static str {
        match self.way {
            Way::Publish => "eventbroker",
            Way::Publisher => "eventbroker, publisher",
            Way::RawBytes => "eventbroker, raw bytes checked",
            Way::Batch => "eventbroker, publish_batch",
            Way::Again => "eventbroker, refused and again",
        }
    }

    fn role(&self) -> Role {
        Role::Ours
    }

    fn lacks(&self) -> &'static str {
        ""
    }

    fn run(&self, work: &Work) -> Duration {
        let broker = self.open(work);
        let took = self.run_on(&broker, work);
        broker.stop(PATIENCE);
        took
    }
}

impl Ours {
    pub(crate) fn new(way: Way) -> Self {
        Self { way, others: 0, metrics: true }
    }

    pub(crate) fn metrics(self, metrics: bool) -> Self {
        Self { metrics, ..self }
    }

    pub(crate) fn among(self, others: usize) -> Self {
        Self { others, ..self }
    }

    /// Starts a broker with the subscriptions of the work. All settings are defaults except the capacity of the queue,
    /// its overflow policy and, if the shape sets it, the number of workers.
    fn open(self, work: &Work) -> Broker {
        let Shape { workers, subscriptions, .. } = work.shape;
        let builder = Broker::builder().metrics(self.metrics);
        let builder = if workers == 1 { builder } else { builder.worker_count(workers) };
        let broker = builder.start().expect("a broker");
        for n in 0..self.others {
            broker.subscribe(other_pattern(n), |_| ()).expect("a subscription");
        }
        for _ in 0..subscriptions {
            let tally = work.tally();
            let options = self.options(work.shape);
            broker.subscribe_with(options, move |delivery| tally.handle(delivery.event())).expect("a subscription");
        }
        broker
    }

    /// The options of the matching subscriptions.
    pub(crate) fn options(self, shape: Shape) -> SubscribeOptions {
        let mut options = SubscribeOptions::new(PATTERN).queue_capacity(shape.capacity);
        if shape.workers > 1 {
            options = options.concurrency(shape.workers);
        }
        if self.way != Way::Again {
            options = options.overflow(Overflow::Block(PATIENCE));
        }
        options
    }

    /// Does the work on a broker with its subscriptions. The work is done when each event is handled and counted as
    /// completed.
    pub(crate) fn run_on(self, broker: &Broker, work: &Work) -> Duration {
        let before = broker.stats();
        let completed = before.completed + work.events;
        let publisher = || |events: Events<'_>| self.publish(broker, events);
        let took = work.time_until(publisher, |all_handled| all_handled && broker.stats().completed >= completed);
        let after = broker.stats();
        assert_eq!((after.completed, after.failed), (completed, before.failed), "every event is completed, none twice");
        assert_eq!(after.accepted - before.accepted, work.events, "every event is accepted once");
        took
    }

    fn publish(self, broker: &Broker, mut events: Events<'_>) {
        match self.way {
            Way::Publish => events.for_each(|event| _ = broker.publish(event).expect("accepted")),
            Way::Publisher => {
                let mut publisher = broker.publisher(Source::System, EVENT_TYPE).expect("a valid type");
                let payload = Payload::from_json(payload_json()).expect("valid JSON");
                for _ in 0..events.left() {
                    let event = publisher.event().payload_raw(payload.clone()).build().expect("a valid event");
                    publisher.publish(event).expect("accepted");
                }
            }
            Way::RawBytes => {
                let json = payload_json();
                for _ in 0..events.left() {
                    let event = Event::builder(Source::System, EVENT_TYPE).payload_json(json.as_bytes()).build();
                    broker.publish(event.expect("a valid event")).expect("accepted");
                }
            }
            Way::Batch => {
                while events.left() > 0 {
                    let outcomes = broker.publish_batch(events.by_ref().take(BATCH));
                    assert!(outcomes.iter().all(Result::is_ok), "all are accepted");
                }
            }
            Way::Again => {
                for mut event in events {
                    while let Err(refused) = broker.publish(event) {
                        event = refused.into_event();
                        std::thread::yield_now();
                    }
                }
            }
        }
    }
}
