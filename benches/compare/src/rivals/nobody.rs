//! No receiver: the events are built and dropped, which is the cost of the harness.

use std::time::Duration;

use super::{Rival, Role};
use crate::harness::{Events, Work};

/// The harness without a receiver.
#[derive(Debug)]
pub(crate) struct Nobody;

impl Rival for Nobody {
    fn name(&self) -> &'static str {
        "the events built, for nobody"
    }

    fn role(&self) -> Role {
        Role::Floor
    }

    fn lacks(&self) -> &'static str {
        "everything"
    }

    fn run(&self, work: &Work) -> Duration {
        work.time(|| {
            let tally = work.tally();
            move |events: Events<'_>| events.for_each(|event| tally.handle(&event))
        })
    }
}
