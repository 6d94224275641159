//! How everything here is measured. What one sample does is in `harness/work.rs`, what many of them say in
//! `harness/samples.rs`. What is measured is not told here: that is in the file of each section.

mod samples;
mod sleeps;
mod work;

use std::time::Duration;

pub(crate) use samples::{Samples, Spread, quantile};
use sleeps::sleeps;
pub(crate) use work::{EVENT_TYPE, Events, PATTERN, Shape, Work, other_pattern, payload_json};

/// How much is measured.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// How often each contestant has its turn.
    pub(crate) rounds: usize,
    /// How long a sample should take.
    pub(crate) sample: Duration,
    /// Only to see whether everything works: the figures say nothing.
    pub(crate) quick: bool,
    /// Parts of the names of those who take part; none means everybody.
    pub(crate) who: Vec<String>,
}

impl Plan {
    pub(crate) fn new(rounds: Option<usize>, quick: bool, who: Vec<String>) -> Self {
        let (usual, sample) = if quick { (2, 4) } else { (7, 350) };
        Self { rounds: rounds.unwrap_or(usual), sample: Duration::from_millis(sample), quick, who }
    }

    /// A number of things to do: the first one, or the second one if this is the short form.
    pub(crate) fn pick<T>(&self, usual: T, quick: T) -> T {
        if self.quick { quick } else { usual }
    }

    /// Whether somebody of this name takes part.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.who.is_empty() || self.who.iter().any(|part| name.contains(part.as_str()))
    }

    /// Gives each contestant one turn per round: A B C A B C. So a disturbance of the machine meets all of them, and figures
    /// of one round can be compared. What the turns gave comes in the order of the contestants.
    pub(crate) fn interleave<C, T>(&self, contestants: &[C], mut turn: impl FnMut(&C) -> T) -> Vec<Vec<T>> {
        let mut rounds: Vec<Vec<T>> = contestants.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.rounds {
            for (contestant, found) in contestants.iter().zip(&mut rounds) {
                found.push(turn(contestant));
            }
        }
        rounds
    }

    /// How many events take about as long as a sample should; found by doing it with ever more of them.
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
