//! pubsub: named channels, and a thread pool that runs the subscribers. It carries text, so it receives the text of the
//! payload.
//!
//! A message can stay in its backlog until the next one arrives: the worker finds the backlog empty, and only then
//! marks itself as ended. So the waiting loop here sends nudges, which are not counted.

use std::thread;
use std::time::Duration;

use super::{Rival, Role};
use crate::harness::{EVENT_TYPE, Events, Shape, Work};

const NUDGE: &str = "";

/// The rival `pubsub`.
#[derive(Debug)]
pub(crate) struct PubSub;

impl Rival for PubSub {
    fn name(&self) -> &'static str {
        "pubsub 0.2"
    }

    fn role(&self) -> Role {
        Role::Peer
    }

    fn lacks(&self) -> &'static str {
        "carries text, no events; channels are exact names; one handler call per subscription at a time; its queue is unbounded \
         (the publisher here waits); no store, status, retries, dead letters or keys; a message can wait for the next one"
    }

    fn run(&self, work: &Work) -> Duration {
        let Shape { workers, subscriptions, capacity, publishers, .. } = work.shape;
        let pubsub = pubsub::PubSub::new(workers);
        let kept: Vec<_> = (0..subscriptions)
            .map(|_| {
                let tally = work.tally();
                let handle = move |text: String| {
                    if text != NUDGE {
                        tally.handle_other(&text);
                    }
                };
                pubsub.subscribe(EVENT_TYPE, handle)
            })
            .collect();
        let (tally, room) = (work.tally(), (capacity / publishers).max(1) as u64);
        let shares = (subscriptions * publishers) as u64;
        let publisher = || {
            let (pubsub, tally) = (pubsub.clone(), &tally);
            move |events: Events<'_>| {
                for (n, event) in (0..).zip(events) {
                    // An equal share of the capacity for each publisher.
                    while n > tally.count() / shares + room {
                        thread::yield_now();
                        pubsub.notify(EVENT_TYPE, NUDGE);
                    }
                    pubsub.notify(EVENT_TYPE, event.payload().as_str());
                }
            }
        };
        let took = work.time_until(publisher, |all_handled| {
            if !all_handled {
                pubsub.notify(EVENT_TYPE, NUDGE);
            }
            all_handled
        });
        drop(kept);
        took
    }
}
