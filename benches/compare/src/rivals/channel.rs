//! A bare channel per subscription that passes the same `Arc<Event>`, which the receiver drops. Each channel has a file
//! of its own.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use eventbroker::Event;

use super::{Rival, Role};
use crate::harness::{Events, Work};

/// A bounded multi-producer, multi-consumer channel.
pub(crate) trait Channel {
    const NAME: &'static str;
    type Sender: Clone + Send;
    type Receiver: Clone + Send;

    fn bounded(capacity: usize) -> (Self::Sender, Self::Receiver);
    /// Sends; blocks while the channel is full.
    fn send(sender: &Self::Sender, event: Arc<Event>);
    /// Receives; blocks until an event arrives. `None` when all senders are dropped.
    fn receive(receiver: &Self::Receiver) -> Option<Arc<Event>>;
}

/// A rival that is only a channel.
#[derive(Debug)]
pub(crate) struct Bare<C>(pub(crate) C);

impl<C: Channel> Rival for Bare<C> {
    fn name(&self) -> &'static str {
        C::NAME
    }

    fn role(&self) -> Role {
        Role::Yardstick
    }

    fn lacks(&self) -> &'static str {
        "passes events only: no routing, store, status, statistics, retries, dead letters, keys, panic guard, pool or policy"
    }

    fn run(&self, work: &Work) -> Duration {
        let shape = work.shape;
        thread::scope(|scope| {
            let senders: Vec<C::Sender> = (0..shape.subscriptions)
                .map(|_| {
                    let (sender, receiver) = C::bounded(shape.capacity);
                    for _ in 0..shape.workers {
                        let (receiver, tally) = (receiver.clone(), work.tally());
                        scope.spawn(move || {
                            while let Some(event) = C::receive(&receiver) {
                                tally.handle(&event);
                            }
                        });
                    }
                    sender
                })
                .collect();
            work.time(|| {
                let senders = senders.clone();
                move |events: Events<'_>| publish::<C>(&senders, events)
            })
        })
    }
}

fn publish<C: Channel>(senders: &[C::Sender], events: Events<'_>) {
    let (last, others) = senders.split_last().expect("a subscription");
    for event in events {
        let event = Arc::new(event);
        others.iter().for_each(|sender| C::send(sender, Arc::clone(&event)));
        C::send(last, event);
    }
}
