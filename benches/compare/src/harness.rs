//! The measuring. The work of one sample is in `harness/work.rs`, the statistics of many in `harness/samples.rs`. The
//! subject of each measurement is in the file of its section.

mod samples;
mod sleeps;
mod work;

use std::time::Duration;

pub(crate) use samples::{Samples, Spread, quantile};
use sleeps::sleeps;
pub(crate) use work::{EVENT_TYPE, Events, PATTERN, Shape, Work, other_pattern, payload_json};

/// The size of a run.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The number of rounds. Each contestant has one turn per round.
    pub(crate) rounds: usize,
    /// The intended duration of a sample.
    pub(crate) sample: Duration,
    /// The short form, which only shows that everything works.
    pub(crate) quick: bool,
    /// Substrings of the names of the contestants to run; empty for all.
    pub(crate) who: Vec<String>,
}

impl Plan {
    pub(crate) fn new(rounds: Option<usize>, quick: bool, who: Vec<String>) -> Self {
        let (usual, sample) = if quick { (2, 4) } else { (7, 350) };
        Self { rounds: rounds.unwrap_or(usual), sample: Duration::from_millis(sample), quick, who }
    }

    /// `usual`, or `quick` in the short form.
    pub(crate) fn pick<T>(&self, usual: T, quick: T) -> T {
        if self.quick { quick } else { usual }
    }

    /// Whether the contestant of this name takes part.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.who.is_empty() || self.who.iter().any(|part| name.contains(part.as_str()))
    }

    /// Gives each contestant one turn per round: A B C A B C. A disturbance of the machine then affects all of them,
    /// and figures of one round are comparable. The results are in the order of the contestants.
    pub(crate) fn interleave<C, T>(&self, contestants: &[C], mut turn: impl FnMut(&C) -> T) -> Vec<Vec<T>> {
        let mut rounds: Vec<Vec<T>> = contestants.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.rounds {
            for (contestant, found) in contestants.iter().zip(&mut rounds) {
                found.push(turn(contestant));
            }
        }
        rounds
    }

    /// Finds the number of events that take about as long as a sample should, by runs with ever more events.
    pub(crate) fn events_per_sample(&self, mut run: impl FnMut(u64) -> Duration) -> u64 {
        let mut events = 500;
        loop {
            let took = run(events);
            if took >= self.sample / 4 || events >= 1 << 24 {
                let per_sample = events as f64 * self.sample.as_secs_f64() / took.as_secs_f64();
                return (per_sample as u64).max(100);
            }
            events *= if took < self.sample / 40 { 8 } else { 3 };
        }
    }
}
