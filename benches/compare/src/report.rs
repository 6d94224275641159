//! The output: sections of tables, and the goals, as text and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::harness::{Samples, Spread};
use crate::machine::Machine;
use crate::rivals::{Rival, Role};

/// The results of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: Machine,
    /// Whether this was the short form, whose figures are meaningless.
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) sections: Vec<Section>,
}

/// The results of one section.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Section {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// The method of measurement.
    pub(crate) method: &'static str,
    pub(crate) tables: Vec<Table>,
    pub(crate) goals: Vec<Goal>,
}

/// Contestants and their figures.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Table {
    pub(crate) title: String,
    pub(crate) unit: &'static str,
    /// The names of the rows that the others are compared with.
    pub(crate) bases: Vec<&'static str>,
    pub(crate) rows: Vec<Row>,
}

/// One contestant.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// The features of this broker that the contestant lacks.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) lacks: &'static str,
    pub(crate) figure: Spread,
    /// The ratio to each base, round by round.
    pub(crate) ratios: Vec<Spread>,
    /// Sleeps of all threads per event, if counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sleeps_per_event: Option<f64>,
    #[serde(skip)]
    samples: Samples,
}

/// A goal of the design: its bound, and the figure measured.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Goal {
    pub(crate) id: &'static str,
    pub(crate) what: String,
    pub(crate) figure: f64,
    pub(crate) bound: Bound,
    pub(crate) met: bool,
}

/// The bound of a figure.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    pub(crate) fn new(id: &'static str, what: impl Into<String>, figure: f64, bound: Bound) -> Self {
        let met = match bound {
            Bound::AtLeast(least) => figure >= least,
            Bound::AtMost(most) => figure <= most,
        };
        Self { id, what: what.into(), figure, bound, met }
    }
}

impl Row {
    pub(crate) fn of(rival: &dyn Rival, samples: Samples) -> Self {
        Self { role: rival.role(), lacks: rival.lacks(), ..Self::named(rival.name(), samples) }
    }

    pub(crate) fn called(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    pub(crate) fn slept(self, sleeps_per_event: f64) -> Self {
        Self { sleeps_per_event: Some(sleeps_per_event), ..self }
    }

    /// A figure of ours.
    pub(crate) fn named(name: impl Into<String>, samples: Samples) -> Self {
        Self::by(Role::Ours, name, samples)
    }

    pub(crate) fn by(role: Role, name: impl Into<String>, samples: Samples) -> Self {
        Self {
            name: name.into(),
            role,
            lacks: "",
            figure: samples.spread(),
            ratios: Vec::new(),
            sleeps_per_event: None,
            samples,
        }
    }
}

impl Table {
    pub(crate) fn new(
        title: impl Into<String>,
        unit: &'static str,
        bases: &[&'static str],
        mut rows: Vec<Row>,
    ) -> Self {
        let base_samples: Vec<Samples> = bases
            .iter()
            .filter_map(|base| rows.iter().find(|row| row.name == *base))
            .map(|row| row.samples.clone())
            .collect();
        for row in &mut rows {
            row.ratios = base_samples.iter().map(|base| row.samples.ratio_to(base).spread()).collect();
        }
        let bases = bases.iter().copied().filter(|base| rows.iter().any(|row| row.name == *base)).collect();
        Self { title: title.into(), unit, bases, rows }
    }

    fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The median of a row; NaN if there is no such row.
    pub(crate) fn figure(&self, name: &str) -> f64 {
        self.row(name).map_or(f64::NAN, |row| row.figure.median)
    }

    /// The maximum of a row; NaN if there is no such row.
    pub(crate) fn most(&self, name: &str) -> f64 {
        self.row(name).map_or(f64::NAN, |row| row.figure.max)
    }

    /// The sleeps per event of a row; NaN if there are none.
    pub(crate) fn sleeps(&self, name: &str) -> f64 {
        self.row(name).and_then(|row| row.sleeps_per_event).unwrap_or(f64::NAN)
    }

    /// The median of the ratios of one row to another, round by round; NaN if one of them is missing.
    pub(crate) fn ratio(&self, name: &str, base: &str) -> f64 {
        let rows = self.row(name).zip(self.row(base));
        rows.map_or(f64::NAN, |(row, base)| row.samples.ratio_to(&base.samples).spread().median)
    }

    fn text(&self) -> String {
        let mut text = format!("\n{}: {}\n", self.title, self.unit);
        let _ = write!(text, "  {:<32}{:>12}{:>12}{:>12}", "", "median", "min", "max");
        let widths: Vec<usize> = self.bases.iter().map(|base| (base.len() + 5).max(24)).collect();
        for (base, width) in self.bases.iter().zip(&widths) {
            let _ = write!(text, "{:>width$}", format!("by {base}"));
        }
        let sleeps = self.rows.iter().any(|row| row.sleeps_per_event.is_some());
        text.push_str(if sleeps { "    sleeps/event\n" } else { "\n" });
        for row in &self.rows {
            let Spread { median, min, max } = row.figure;
            let _ = write!(text, "  {:<32}{:>12}{:>12}{:>12}", row.name, number(median), number(min), number(max));
            for (ratio, width) in row.ratios.iter().zip(&widths) {
                let range = format!("{:.2} ({:.2}-{:.2})", ratio.median, ratio.min, ratio.max);
                let _ = write!(text, "{range:>width$}");
            }
            if let Some(sleeps) = row.sleeps_per_event {
                let _ = write!(text, "{sleeps:>16.5}");
            }
            text.push('\n');
        }
        text
    }
}

impl Section {
    pub(crate) fn text(&self) -> String {
        let mut text = format!("\n== {}\n{}\n", self.title, self.method);
        self.tables.iter().for_each(|table| text.push_str(&table.text()));
        let mut told = Vec::new();
        for row in self.tables.iter().flat_map(|table| &table.rows) {
            if !row.lacks.is_empty() && !told.contains(&row.lacks) {
                told.push(row.lacks);
                let heading = if told.len() == 1 { "\nFeatures that the others lack:\n" } else { "" };
                let _ = writeln!(text, "{heading}  {}: {}", row.name, row.lacks);
            }
        }
        text
    }
}

impl Report {
    pub(crate) fn goals(&self) -> impl Iterator<Item = &Goal> {
        self.sections.iter().flat_map(|section| &section.goals)
    }

    pub(crate) fn goals_text(&self) -> String {
        let mut text = "\n== goals\n".to_owned();
        for Goal { id, what, figure, bound, met } in self.goals() {
            let bound = match bound {
                Bound::AtLeast(least) => format!(">= {}", number(*least)),
                Bound::AtMost(most) => format!("<= {}", number(*most)),
            };
            let verdict = match met {
                _ if self.quick => "not judged",
                true => "met",
                false => "NOT MET",
            };
            let _ = writeln!(text, "  {id:<6}{what:<88}{:>12} {bound:>12}  {verdict}", number(*figure));
        }
        if self.quick {
            text.push_str(
                "\nThis was the short form: it only shows that everything works, and its figures are meaningless.\n",
            );
        }
        text
    }
}

/// Formats a number for reading: grouped digits, or two to five decimal places.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        ..0.01 => format!("{value:.5}"),
        ..100.0 => format!("{value:.2}"),
        _ => {
            let digits = format!("{value:.0}");
            let grouped = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy);
            grouped.collect::<Vec<_>>().join(",")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn numbers_have_groups_of_three_or_two_places() {
        let written: Vec<String> = [1_234_567.0, 100.0, 1.5, 0.001, 0.0].into_iter().map(number).collect();
        assert_eq!(written, ["1,234,567", "100", "1.50", "0.00100", "0"]);
    }
}
