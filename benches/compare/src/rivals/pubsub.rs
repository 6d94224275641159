//! pubsub: channels by name, and a pool of threads that runs the subscribers. It carries text, so it gets the payload's.
//!
//! It can leave a message lying until the next one comes: its worker looks into the backlog, finds nothing, and says only after
//! that that it has ended. So whoever waits here sends nudges, which are not counted.

use std::thread;
use std::time::Duration;

use super::{Rival, Role};
use crate::harness::{EVENT_TYPE, Events, Shape, Work};

const NUDGE: &str = "";

/// See the module's page.
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
        "carries text and no events; channels are exact names; one handler call per subscription at a time; its queue has no \
         bound (the publisher here waits); no store, status, retries, dead letters or keys; a message can lie until the next one comes"
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
                    // Its share of the room, as if all publishers were equally quick.
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
