//! Rates: any number of runners, each with its own work, at full speed, in turn.

use std::time::Duration;

use crate::harness::{Plan, Samples, Work};
use crate::report::Row;
use crate::rivals::Rival;

/// A rival and its work.
pub(crate) struct Runner {
    name: String,
    rival: Box<dyn Rival>,
    work: Box<dyn Fn(u64) -> Work>,
}

impl Runner {
    /// `work` creates the work for a number of events.
    pub(crate) fn new(rival: Box<dyn Rival>, work: impl Fn(u64) -> Work + 'static) -> Self {
        Self { name: rival.name().to_owned(), rival, work: Box::new(work) }
    }

    /// Sets another name than that of the rival.
    pub(crate) fn called(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Returns deliveries per second, and sleeps per event.
    fn run(&self, events: u64) -> (f64, f64) {
        let work = (self.work)(events);
        let took: Duration = self.rival.run(&work);
        let deliveries = events * work.shape.subscriptions as u64;
        (deliveries as f64 / took.as_secs_f64(), work.sleeps_per_event())
    }
}

/// Runs the runners in turn. Returns one row per runner, in their order.
pub(crate) fn race(plan: &Plan, runners: impl IntoIterator<Item = Runner>) -> Vec<Row> {
    let sized: Vec<(Runner, u64)> = runners
        .into_iter()
        .filter(|runner| plan.wants(&runner.name))
        .map(|runner| {
            let events = plan.events_per_sample(|events| runner.rival.run(&(runner.work)(events)));
            (runner, events)
        })
        .collect();
    let rounds = plan.interleave(&sized, |(runner, events)| runner.run(*events));
    let rows = sized.iter().zip(rounds).map(|((runner, _), rounds)| {
        let (rates, sleeps): (Samples, Samples) = rounds.into_iter().unzip();
        Row::of(runner.rival.as_ref(), rates).called(&runner.name).slept(sleeps.spread().median)
    });
    rows.collect()
}
