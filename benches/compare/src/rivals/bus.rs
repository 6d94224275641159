//! bus: a broadcast ring for one publisher.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use eventbroker::Event;

use super::{Rival, Role};
use crate::harness::{Events, Shape, Work};

/// The rival `bus`.
#[derive(Debug)]
pub(crate) struct Bus;

impl Rival for Bus {
    fn name(&self) -> &'static str {
        "bus 2.4"
    }

    fn role(&self) -> Role {
        Role::Limit
    }

    fn lacks(&self) -> &'static str {
        "one publisher only; every reader receives every event, one thread each; no routing, store, status, retries, dead letters, \
         keys or panic guard"
    }

    fn fits(&self, shape: &Shape) -> bool {
        shape.publishers == 1
    }

    fn run(&self, work: &Work) -> Duration {
        let mut bus = bus::Bus::<Arc<Event>>::new(work.shape.capacity);
        let readers: Vec<_> = (0..work.shape.subscriptions).map(|_| bus.add_rx()).collect();
        let mut bus = Some(bus);
        thread::scope(|scope| {
            for mut reader in readers {
                let tally = work.tally();
                scope.spawn(move || {
                    while let Ok(event) = reader.recv() {
                        tally.handle(&event);
                    }
                });
            }
            work.time(|| {
                let mut bus = bus.take().expect("one publisher");
                move |events: Events<'_>| events.for_each(|event| bus.broadcast(Arc::new(event)))
            })
        })
    }
}
