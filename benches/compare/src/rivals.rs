//! Everybody who is measured, each in a file of its own, and each used as its own documentation advises. What the work is,
//! and how it is measured, is in `harness`.

mod bus;
mod channel;
mod crossbeam;
mod direct;
mod disruptor;
mod flume;
mod nobody;
mod ours;
mod pubsub;
mod qubit;
mod tokio_broadcast;

use std::time::Duration;

use serde::Serialize;

use crate::harness::{Shape, Work};
pub(crate) use bus::Bus;
pub(crate) use channel::Bare;
pub(crate) use crossbeam::Crossbeam;
pub(crate) use direct::Direct;
pub(crate) use disruptor::Disruptor;
pub(crate) use flume::Flume;
pub(crate) use nobody::Nobody;
pub(crate) use ours::{Ours, Way};
pub(crate) use pubsub::PubSub;
pub(crate) use qubit::Qubit;
pub(crate) use tokio_broadcast::TokioBroadcast;

/// What somebody is measured for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// This broker.
    Ours,
    /// The least that handing over an event can cost with a common channel.
    Yardstick,
    /// Hands events to other threads, and knows who wants which.
    Peer,
    /// The limit of a technique: no routing.
    Limit,
    /// Runs handlers on the thread that publishes: shown, not ranked.
    Inline,
    /// The harness itself, with nobody to receive anything: nobody can be quicker.
    Floor,
}

/// Every rival.
pub(crate) fn all() -> Vec<Box<dyn Rival>> {
    vec![
        Box::new(Bare(Flume)),
        Box::new(Bare(Crossbeam)),
        Box::new(TokioBroadcast::default()),
        Box::new(Qubit),
        Box::new(PubSub),
        Box::new(Bus),
        Box::new(Disruptor::Spins),
        Box::new(Disruptor::Yields),
        Box::new(Direct::default()),
        Box::new(Nobody),
    ]
}

/// A way for events to get from publishers to handlers.
pub(crate) trait Rival {
    fn name(&self) -> &'static str;

    fn role(&self) -> Role;

    /// What it does not do that this broker does.
    fn lacks(&self) -> &'static str;

    /// Whether it can do the work of this shape at all.
    fn fits(&self, _shape: &Shape) -> bool {
        true
    }

    /// Does the work once. Returns the time from the first publish to the end of the last handler; what has to be set up
    /// before is not counted.
    fn run(&self, work: &Work) -> Duration;
}
