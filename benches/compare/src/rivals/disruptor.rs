//! disruptor: a ring of events written in place, the limit of this technique.

use std::thread;
use std::time::Duration;

use disruptor::wait_strategies::WaitStrategy;
use disruptor::{BusySpin, Producer, Sequence, build_multi_producer, build_single_producer};
use eventbroker::Event;

use super::{Rival, Role};
use crate::harness::{Events, Shape, Work};

/// The rival `disruptor`. Its consumers spin, as in its examples, or yield to other threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disruptor {
    Spins,
    Yields,
}

impl Rival for Disruptor {
    fn name(&self) -> &'static str {
        match self {
            Self::Spins => "disruptor 4.4, spins",
            Self::Yields => "disruptor 4.4, yields",
        }
    }

    fn role(&self) -> Role {
        Role::Limit
    }

    fn lacks(&self) -> &'static str {
        "every consumer receives every event and uses a core, even when idle; consumers are fixed at the start; no routing, store, \
         status, retries, dead letters, keys or panic guard"
    }

    /// Spinning needs a core per thread.
    fn fits(&self, shape: &Shape) -> bool {
        shape.subscriptions == 1 && shape.workers <= 2 && (*self == Self::Yields || shape.publishers == 1)
    }

    fn run(&self, work: &Work) -> Duration {
        match self {
            Self::Spins => run(work, BusySpin),
            Self::Yields => run(work, Yield),
        }
    }
}

#[derive(Clone, Copy)]
struct Yield;

impl WaitStrategy for Yield {
    fn wait_for(&self, _sequence: Sequence) {
        thread::yield_now();
    }
}

type Slot = Option<Event>;

fn run<W: WaitStrategy + 'static>(work: &Work, wait: W) -> Duration {
    let Shape { publishers, workers, capacity, .. } = work.shape;
    // Each consumer receives every event, so each of two handles every second one.
    let consumer = |n: i64, of: i64| {
        let tally = work.tally();
        move |slot: &Slot, sequence: Sequence, _end_of_batch: bool| {
            if sequence % of == n {
                tally.handle(slot.as_ref().expect("published"));
            }
        }
    };
    if publishers == 1 && workers == 1 {
        let ring = build_single_producer(capacity, || None, wait).handle_events_with(consumer(0, 1)).build();
        let mut ring = Some(ring);
        return work.time(|| publisher(ring.take().expect("one publisher")));
    }
    let ring = build_multi_producer(capacity, || None, wait)
        .handle_events_with(consumer(0, 2))
        .handle_events_with(consumer(1, 2))
        .build();
    work.time(|| publisher(ring.clone()))
}

fn publisher<P: Producer<Slot> + Send>(mut ring: P) -> impl FnMut(Events<'_>) + Send {
    move |events| events.for_each(|event| ring.publish(|slot| *slot = Some(event)))
}
