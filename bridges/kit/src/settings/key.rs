//! A setting as a configuration file knows it: its key, meaning, bounds and field.

use std::fmt;

use super::{Measure, Setting};

type Field<S> = Box<dyn Fn(&mut S) -> &mut dyn Setting>;

/// The key of a setting in the struct `S`.
pub struct Key<S> {
    /// The name, dotted below the section of its keys: `redis.host`.
    pub path: String,
    /// The meaning in one line, without the full stop.
    pub meaning: &'static str,
    /// The smallest and the largest value.
    pub bounds: Option<(Measure, Measure)>,
    /// The reason for the bounds, for values that look sensible.
    pub reason: &'static str,
    /// Errors and listings hide the value.
    pub secret: bool,
    field: Field<S>,
}

impl<S: 'static> Key<S> {
    /// A key without bounds. The meaning is the first line of the setting's documentation.
    pub fn new(path: &str, meaning: &'static str, field: fn(&mut S) -> &mut dyn Setting) -> Self {
        let (path, meaning) = (path.to_owned(), meaning.trim().trim_end_matches('.'));
        Self { path, meaning, bounds: None, reason: "", secret: false, field: Box::new(field) }
    }

    /// With a smallest and a largest value.
    #[must_use]
    pub fn bounds(mut self, bounds: (Measure, Measure)) -> Self {
        self.bounds = Some(bounds);
        self
    }

    /// With the reason for the bounds.
    #[must_use]
    pub fn because(mut self, reason: &'static str) -> Self {
        self.reason = reason;
        self
    }

    /// With a value that errors and listings hide.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// The same key in a struct that has `S` as a part. The path begins with the name of the section.
    pub fn inside<Outer: 'static>(self, section: &str, part: fn(&mut Outer) -> &mut S) -> Key<Outer> {
        let field = self.field;
        Key {
            path: format!("{section}.{}", self.path),
            meaning: self.meaning,
            bounds: self.bounds,
            reason: self.reason,
            secret: self.secret,
            field: Box::new(move |outer| field(part(outer))),
        }
    }

    /// Whether a value is within the bounds.
    pub fn fits(&self, value: Measure) -> bool {
        self.bounds.is_none_or(|(min, max)| min <= value && value <= max)
    }

    /// The field of the setting.
    pub fn field<'a>(&self, settings: &'a mut S) -> &'a mut dyn Setting {
        (self.field)(settings)
    }

    /// The description of a good value: "a whole number, 1 to 1024".
    pub fn expected(&self, settings: &mut S) -> String {
        let mut text = self.field(settings).expected();
        match &self.bounds {
            Some((Measure::Bytes(min), Measure::Bytes(max))) => text += &format!(", {min} to {max} bytes long"),
            Some((min, max)) => text += &format!(", {min} to {max}"),
            None => {}
        }
        if !self.reason.is_empty() {
            text += &format!(" ({})", self.reason);
        }
        text
    }

    /// Checks the field against the bounds.
    ///
    /// # Errors
    /// The name, the value and the bound.
    pub fn check(&self, settings: &mut S) -> Result<(), String> {
        let problem = self.bounds.and_then(|bounds| self.field(settings).measure()?.problem(bounds));
        problem.map_or(Ok(()), |problem| Err(format!("{}: {problem}", self.path)))
    }
}

impl<S> fmt::Debug for Key<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("path", &self.path).field("bounds", &self.bounds).finish_non_exhaustive()
    }
}
