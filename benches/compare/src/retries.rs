//! The cost of waiting retries: the rate of healthy events while thousands of failed ones wait for their backoff.

use std::thread;
use std::time::Duration;

use eventbroker::{Broker, Delivery, Event, HandlerError, Source};

use crate::harness::{Plan, Shape, Work};
use crate::race::{Runner, race};
use crate::report::{Section, Table};
use crate::rivals::{Ours, Rival, Role, Way};

const SHAPE: Shape = Shape::new(1, 1, 1_024);
/// The default of `max_waiting`. At this number a subscription counts as full, so in the measured one there is one
/// retry less.
const WAITING: usize = 10_000;
/// A backoff longer than any run.
const BACKOFF: Duration = Duration::from_secs(300);
const FAILING: &str = "bench.orders.fail";
const FAILING_ELSEWHERE: &str = "bench.failing.create";
const NONE: &str = "no retries";
const OTHER: &str = "10,000 wait, another subscription";
const SAME: &str = "9,999 wait, the same subscription";

pub(crate) fn run(plan: &Plan) -> Section {
    let cases = [(NONE, Waiting::Nothing), (OTHER, Waiting::Elsewhere), (SAME, Waiting::Here)];
    let runners =
        cases.map(|(name, waiting)| Runner::new(Box::new(waiting), |events| Work::new(SHAPE, events)).called(name));
    let table = Table::new("1 publisher, capacity 1,024", "events/s", &[NONE], race(plan, runners));
    Section {
        name: "retries",
        title: "Retries under way",
        method: "As in throughput, while deliveries that failed once wait for a retry that is due after the run.",
        tables: vec![table],
        ..Section::default()
    }
}

/// This broker with waiting retries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    Nothing,
    /// In a subscription that receives nothing else.
    Elsewhere,
    /// In the measured subscription.
    Here,
}

impl Rival for Waiting {
    fn name(&self) -> &'static str {
        "eventbroker"
    }

    fn role(&self) -> Role {
        Role::Ours
    }

    fn lacks(&self) -> &'static str {
        ""
    }

    fn run(&self, work: &Work) -> Duration {
        let broker = Broker::builder().start().expect("a broker");
        let (ours, tally) = (Ours::new(Way::Publish), work.tally());
        let handler = move |delivery: &Delivery<'_>| match delivery.event().event_type().as_str() {
            FAILING => Err(later()),
            _ => {
                tally.handle(delivery.event());
                Ok(())
            }
        };
        broker.subscribe_with(ours.options(work.shape), handler).expect("a subscription");
        broker.subscribe(FAILING_ELSEWHERE, |_| Err::<(), _>(later())).expect("a subscription");
        match self {
            Self::Nothing => {}
            Self::Elsewhere => fail(&broker, FAILING_ELSEWHERE, WAITING),
            Self::Here => fail(&broker, FAILING, WAITING - 1),
        }
        let took = ours.run_on(&broker, work);
        broker.stop(Duration::from_secs(1));
        took
    }
}

fn later() -> HandlerError {
    HandlerError::retry_after(BACKOFF, "not yet")
}

/// Publishes failing events, and waits until this many retries wait.
fn fail(broker: &Broker, event_type: &str, count: usize) {
    for _ in 0..count {
        let mut event = Event::builder(Source::System, event_type).build().expect("a valid event");
        while let Err(refused) = broker.publish(event) {
            event = refused.into_event();
            thread::yield_now();
        }
    }
    while broker.stats().subscriptions.iter().map(|it| it.waiting).sum::<u64>() < count as u64 {
        thread::yield_now();
    }
}
