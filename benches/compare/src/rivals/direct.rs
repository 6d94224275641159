//! A list of patterns and functions that the publisher scans and calls itself, as a program without a bus does. No
//! thread, no queue.

use std::sync::Arc;
use std::time::Duration;

use eventbroker::{Event, Pattern};

use super::{Rival, Role};
use crate::harness::{Events, PATTERN, Work, other_pattern};

type Handler = Box<dyn Fn(&Event) + Send + Sync>;

/// The list, with this many subscriptions beside the matching ones.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Direct {
    pub(crate) others: usize,
}

impl Rival for Direct {
    fn name(&self) -> &'static str {
        "direct call, list scanned"
    }

    fn role(&self) -> Role {
        Role::Inline
    }

    fn lacks(&self) -> &'static str {
        "handlers run on the publishing thread, which waits for them; no queue, store, status, retries, dead letters, keys or \
         panic guard"
    }

    fn run(&self, work: &Work) -> Duration {
        let others = (0..self.others).map(other_pattern);
        let patterns = others.chain((0..work.shape.subscriptions).map(|_| PATTERN.to_owned()));
        let handlers: Vec<(Pattern, Handler)> = patterns
            .map(|pattern| {
                let tally = work.tally();
                let handler: Handler = Box::new(move |event| tally.handle(event));
                (Pattern::parse(&pattern).expect("a valid pattern"), handler)
            })
            .collect();
        work.time(|| {
            |events: Events<'_>| {
                for event in events {
                    let event = Arc::new(event);
                    let wanted = handlers.iter().filter(|(pattern, _)| pattern.matches(event.event_type().as_str()));
                    wanted.for_each(|(_, handler)| handler(&event));
                }
            }
        })
    }
}
