//! Samples of a process's resources over time.

use std::time::Instant;

use eventbroker_conformance::processes::{Member, Resources};

/// The samples of one run.
pub(crate) struct Samples {
    began: Instant,
    /// Hours since the start, and resident MiB.
    memory: Vec<(f64, f64)>,
    /// The samples of the quiet times.
    quiet: Vec<Resources>,
}

impl Samples {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), memory: Vec::new(), quiet: Vec::new() }
    }

    pub(crate) fn take(&mut self, member: &Member) {
        let hours = self.began.elapsed().as_secs_f64() / 3_600.0;
        self.memory.push((hours, member.resources().resident_kib as f64 / 1_024.0));
    }

    pub(crate) fn take_quiet(&mut self, member: &Member) {
        self.quiet.push(member.resources());
    }

    /// Resident memory at half-time and at the end, in MiB.
    pub(crate) fn memory(&self) -> (f64, f64) {
        let at = |place: usize| self.memory.get(place).map_or(0.0, |it| it.1);
        (at(self.memory.len() / 2), at(self.memory.len().saturating_sub(1)))
    }

    /// The growth of memory in MiB per hour, by least squares over the second half.
    pub(crate) fn slope(&self) -> f64 {
        slope(&self.memory[self.memory.len() / 2..])
    }

    /// The minimum in quiet times of the first and of the last quarter of the run. The minimum ignores a connection
    /// being reopened or a worker about to end.
    pub(crate) fn begin_and_end(&self, of: impl Fn(&Resources) -> u64) -> (u64, u64) {
        let quarter = self.quiet.len().div_ceil(4);
        let least = |part: &[Resources]| part.iter().map(&of).min().unwrap_or(0);
        (least(&self.quiet[..quarter]), least(&self.quiet[self.quiet.len() - quarter..]))
    }
}

fn slope(points: &[(f64, f64)]) -> f64 {
    let count = points.len().max(1) as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|it| it.0), mean(|it| it.1));
    let spread: f64 = points.iter().map(|it| (it.0 - x).powi(2)).sum();
    let together: f64 = points.iter().map(|it| (it.0 - x) * (it.1 - y)).sum();
    if spread > 0.0 { together / spread } else { 0.0 }
}
