//! The contestants, each in a file of its own and used as its documentation recommends. The work and the measuring are
//! in `harness`.

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

/// The role of a contestant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// This broker.
    Ours,
    /// The minimum cost of passing an event through a common channel.
    Yardstick,
    /// Delivers events to other threads by topic or filter.
    Peer,
    /// The limit of a technique: no routing.
    Limit,
    /// Runs handlers on the publishing thread: shown, not ranked.
    Inline,
    /// The harness without a receiver: the upper bound.
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

/// A transport of events from publishers to handlers.
pub(crate) trait Rival {
    fn name(&self) -> &'static str;

    fn role(&self) -> Role;

    /// The features of this broker that it lacks.
    fn lacks(&self) -> &'static str;

    /// Whether it supports this shape.
    fn fits(&self, _shape: &Shape) -> bool {
        true
    }

    /// Does the work once. Returns the time from the first publish to the end of the last handler, without the setup.
    fn run(&self, work: &Work) -> Duration;
}
