//! The problems of a configuration: all of them in one error, each with its place, and without secrets.

use std::fmt;

use crate::keys;
use crate::yaml::Position;

/// All problems of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<ConfigProblem>,
}

impl ConfigError {
    pub(crate) fn new(problems: Vec<ConfigProblem>) -> Self {
        Self { problems }
    }

    /// The problems, at least one, those of the file first and in its order.
    pub fn problems(&self) -> &[ConfigProblem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let problems: Vec<String> = self.problems.iter().map(ToString::to_string).collect();
        f.write_str(&problems.join("\n"))
    }
}

impl std::error::Error for ConfigError {}

/// One problem.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConfigProblem {
    /// Its place.
    pub place: Place,
    /// The key with its whole path, or nothing if the text is no YAML or cannot be read.
    pub key: String,
    /// The problem in words, with the value and the bound.
    pub message: String,
}

impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Text { file, line, column, .. } => write!(f, "{file}:{line}:{column}: ")?,
            Place::Variable { name } => write!(f, "variable {name}: ")?,
            Place::File { file } => write!(f, "{file}: ")?,
            Place::Unknown => {}
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if let Place::Text { line, column, width, excerpt, .. } = &self.place {
            let margin = line.to_string().len();
            // Tabs keep their width under the line.
            let indent: String =
                excerpt.chars().take(column - 1).map(|it| if it == '\t' { '\t' } else { ' ' }).collect();
            write!(f, "\n  {line} | {excerpt}\n  {:margin$} | {indent}{}", "", "^".repeat(*width))?;
        }
        Ok(())
    }
}

/// The place of a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// In a text.
    Text {
        /// Its name.
        file: String,
        /// Counted from 1.
        line: usize,
        /// In characters, counted from 1.
        column: usize,
        /// The number of characters that the problem covers, at least 1.
        width: usize,
        /// The line, up to the first character that may be secret.
        excerpt: String,
    },
    /// In a variable of the environment.
    Variable {
        /// Its name.
        name: String,
    },
    /// The file as a whole.
    File {
        /// Its name.
        file: String,
    },
    /// In values without a place: they were parsed elsewhere, or are defaults.
    Unknown,
}

/// A text with its name, to show excerpts of.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Source {
    /// The place of a value whose key is known and no secret.
    pub(crate) fn place(&self, position: Position) -> Place {
        self.shown(position, usize::MAX)
    }

    /// The place of a value that must not be shown: the line ends at the position.
    pub(crate) fn place_before_value(&self, position: Position) -> Place {
        self.shown(position, position.column - 1 + position.width)
    }

    /// The place of a secret value: the line ends before it.
    pub(crate) fn place_of_secret(&self, position: Position) -> Place {
        let position = Position { width: 1, ..position };
        self.shown(position, position.column - 1)
    }

    /// The place of a text that is not YAML. Any part of its line may be secret, so the line shows only a known key, or a
    /// key at the margin, where no value can go on.
    pub(crate) fn place_of_malformed(&self, position: Position) -> Place {
        let line = self.line(position);
        let name = |it: &str| it.chars().all(|it| it.is_alphanumeric() || matches!(it, '_' | '-'));
        let known = |it: &str| keys::keys().iter().any(|key| key.path.split('.').any(|part| part == it));
        let shown = match line.split_once(':') {
            Some((key, _)) if name(key) || known(key.trim()) => key.chars().count() + 1,
            _ => 0,
        };
        self.shown(position, shown)
    }

    fn line(&self, position: Position) -> &str {
        self.text.lines().nth(position.line - 1).unwrap_or_default()
    }

    fn shown(&self, position: Position, up_to: usize) -> Place {
        let text = self.line(position);
        let mut excerpt: String = text.chars().take(up_to.min(secret_begins(text))).collect();
        if excerpt.chars().count() < text.trim_end().chars().count() {
            excerpt.push('…');
        }
        let Position { line, column, width } = position;
        Place::Text { file: self.name.clone(), line, column, width, excerpt }
    }
}

/// The number of characters of a line before a secret may begin: up to the end of the name of a secret key, at any place in the line.
fn secret_begins(line: &str) -> usize {
    let keys = keys::keys();
    let names = keys.iter().filter(|key| key.secret).map(|key| key.path.rsplit('.').next().unwrap_or(&key.path));
    let ends = names.filter_map(|name| line.find(name).map(|at| line[..at + name.len()].chars().count() + 1));
    ends.min().unwrap_or(usize::MAX)
}
