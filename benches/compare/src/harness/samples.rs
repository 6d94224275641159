//! Statistics of the rounds of one contestant: median and spread.

use serde::Serialize;

/// One figure per round.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<f64>);

/// The median, minimum and maximum of the rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

impl Samples {
    /// The ratio of these figures to those of `base`, round by round.
    pub(crate) fn ratio_to(&self, base: &Self) -> Self {
        Self(self.0.iter().zip(&base.0).map(|(mine, its)| mine / its).collect())
    }

    pub(crate) fn spread(&self) -> Spread {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |place: usize| sorted.get(place).copied().unwrap_or(f64::NAN);
        let last = sorted.len().saturating_sub(1);
        Spread { median: (at(last / 2) + at(last.div_ceil(2))) / 2.0, min: at(0), max: at(last) }
    }
}

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(figures: I) -> Self {
        Self(figures.into_iter().collect())
    }
}

impl Extend<f64> for Samples {
    fn extend<I: IntoIterator<Item = f64>>(&mut self, figures: I) {
        self.0.extend(figures);
    }
}

/// The value below which `share` of the values lie. Sorts the values.
pub(crate) fn quantile(values: &mut [u64], share: f64) -> f64 {
    values.sort_unstable();
    let place = ((values.len() as f64 * share) as usize).min(values.len().saturating_sub(1));
    values.get(place).map_or(f64::NAN, |value| *value as f64)
}

#[cfg(test)]
mod tests {
    use super::{Samples, Spread, quantile};

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle_two() {
        let samples: Samples = [4.0, 1.0, 3.0, 2.0].into_iter().collect();
        assert_eq!(samples.spread(), Spread { median: 2.5, min: 1.0, max: 4.0 });
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let (mine, its): (Samples, Samples) = ([2.0, 9.0].into_iter().collect(), [1.0, 3.0].into_iter().collect());
        assert_eq!(mine.ratio_to(&its).spread(), Spread { median: 2.5, min: 2.0, max: 3.0 });
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        assert_eq!(quantile(&mut [5, 1, 4, 2, 3], 0.5), 3.0);
        assert_eq!(quantile(&mut [5, 1, 4, 2, 3], 0.99), 5.0);
    }
}
