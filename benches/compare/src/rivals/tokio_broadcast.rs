//! tokio's broadcast channel with a filter in each receiver, as tokio programs commonly build events.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use eventbroker::{Event, Pattern};
use tokio::sync::broadcast::{self, Sender};

use super::{Rival, Role};
use crate::harness::{Events, PATTERN, Shape, Work, other_pattern};

/// The channel, with this many subscriptions beside the matching ones.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct TokioBroadcast {
    pub(crate) others: usize,
}

impl Rival for TokioBroadcast {
    fn name(&self) -> &'static str {
        "tokio broadcast + filter"
    }

    fn role(&self) -> Role {
        Role::Peer
    }

    fn lacks(&self) -> &'static str {
        "every receiver sees every event; a late receiver loses events (the publisher here waits instead); one receiver per \
         subscription, so one thread; no store, status, retries, dead letters, keys or panic guard"
    }

    fn run(&self, work: &Work) -> Duration {
        let Shape { subscriptions, capacity, publishers, .. } = work.shape;
        let (sender, _) = broadcast::channel::<Arc<Event>>(capacity);
        let others = (0..self.others).map(other_pattern);
        let patterns = others.chain((0..subscriptions).map(|_| PATTERN.to_owned()));
        thread::scope(|scope| {
            for pattern in patterns {
                let (mut receiver, tally) = (sender.subscribe(), work.tally());
                let pattern = Pattern::parse(&pattern).expect("a valid pattern");
                scope.spawn(move || {
                    while let Ok(event) = receiver.blocking_recv() {
                        if pattern.matches(event.event_type().as_str()) {
                            tally.handle(&event);
                        }
                    }
                });
            }
            let took = work.time(|| {
                let sender = sender.clone();
                move |events: Events<'_>| publish(&sender, events, capacity, publishers)
            });
            drop(sender);
            took
        })
    }
}

/// A late receiver loses events, so publishers check the length of the channel. This takes the channel's lock, so they
/// check once for as many events as are sure to fit.
fn publish(sender: &Sender<Arc<Event>>, events: Events<'_>, capacity: usize, publishers: usize) {
    let stride = (capacity / 4 / publishers).max(1);
    for (n, event) in events.enumerate() {
        while n % stride == 0 && sender.len() > capacity / 2 {
            thread::yield_now();
        }
        sender.send(Arc::new(event)).expect("a receiver");
    }
}
