//! qubit-event-bus with its local provider: the rival with the features closest to this broker's.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use eventbroker::Event;
use qubit_event_bus::EventBus;
use qubit_event_bus::local::LocalEventBusConfig;
use qubit_event_bus::model::{AdmissionRequirement, PublishRequest, SubscribeRequest, Topic};
use qubit_event_bus::spi::ShutdownMode;

use super::{Rival, Role};
use crate::harness::{EVENT_TYPE, Events, Work};

/// The rival `qubit-event-bus`.
#[derive(Debug)]
pub(crate) struct Qubit;

impl Rival for Qubit {
    fn name(&self) -> &'static str {
        "qubit-event-bus 0.20"
    }

    fn role(&self) -> Role {
        Role::Peer
    }

    fn lacks(&self) -> &'static str {
        "topics are exact names, no patterns; no store, no status of an event, no list; dead letters go to a topic and are not \
         kept; a thread per subscription, 256 at most by default"
    }

    fn run(&self, work: &Work) -> Duration {
        let shape = work.shape;
        let config = LocalEventBusConfig::new()
            .queue_capacity(shape.capacity)
            .max_total_outstanding(shape.capacity * shape.subscriptions);
        let bus = EventBus::local(config).expect("a bus");
        let topic = Topic::<Arc<Event>>::new(EVENT_TYPE).expect("a topic");
        let subscriptions: Vec<_> = (0..shape.subscriptions)
            .map(|n| {
                let tally = work.tally();
                let request = SubscribeRequest::new(&format!("subscriber-{n}"), topic.clone()).expect("a request");
                bus.subscribe(request, move |delivery| tally.handle(delivery.payload())).expect("a subscription")
            })
            .collect();
        let took = work.time(|| |events: Events<'_>| publish(&bus, &topic, events));
        let ended = bus.shutdown(ShutdownMode::Graceful { timeout: Duration::from_secs(10) }).expect("an end");
        assert_eq!(ended.known_abandoned_deliveries, 0);
        drop(subscriptions);
        took
    }
}

/// A full queue rejects the event, which is then published again. With several subscriptions that would repeat it for
/// those with room, so fan-out leaves this rival out.
fn publish(bus: &EventBus, topic: &Topic<Arc<Event>>, events: Events<'_>) {
    for event in events {
        let event = Arc::new(event);
        loop {
            let request = PublishRequest::new(topic.clone(), Arc::clone(&event)).expect("a request");
            if bus.publish_checked(request, AdmissionRequirement::AtLeastOneAccepted).is_ok() {
                break;
            }
            thread::yield_now();
        }
    }
}
