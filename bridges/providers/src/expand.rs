//! `${NAME}`, `${NAME:-default}` and `${NAME:?message}` in values. A `$` before anything but `{` stays, and `$${` is `${`.

use std::collections::BTreeMap;

/// The values of names.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variables(BTreeMap<String, String>);

impl Variables {
    /// The environment of this process.
    pub(crate) fn of_process() -> Self {
        let text = |it: std::ffi::OsString| it.to_string_lossy().into_owned();
        Self::of(std::env::vars_os().map(|(name, value)| (text(name), text(value))))
    }

    /// Given values, and HOSTNAME, which shells know but seldom export.
    pub(crate) fn of(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut variables: BTreeMap<_, _> = variables.into_iter().collect();
        if !variables.contains_key("HOSTNAME")
            && let Ok(name) = std::fs::read_to_string("/proc/sys/kernel/hostname")
        {
            variables.insert("HOSTNAME".to_owned(), name.trim().to_owned());
        }
        Self(variables)
    }

    /// The values whose names begin with a prefix.
    pub(crate) fn with_prefix(&self, prefix: &str) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter(move |it| it.0.starts_with(prefix)).map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The text with every `${…}` replaced, or the problem of the first one that cannot be.
    pub(crate) fn expand(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            out.push_str(&rest[..start]);
            if out.ends_with('$') {
                out.push('{');
                rest = &rest[start + 2..];
                continue;
            }
            let inside = &rest[start + 2..];
            let end = closing_brace(inside).ok_or("a ${ is not closed by }")?;
            out.push_str(&self.look_up(&inside[..end])?);
            rest = &inside[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    /// The value of the inside of a `${…}`.
    fn look_up(&self, inside: &str) -> Result<String, String> {
        let end = inside.find(|it: char| !(it.is_ascii_alphanumeric() || it == '_')).unwrap_or(inside.len());
        let (name, rest) = inside.split_at(end);
        if name.is_empty() {
            return Err(format!("${{{inside}}} names no variable"));
        }
        let value = self.0.get(name).map(String::as_str);
        let filled = value.filter(|value| !value.is_empty());
        if rest.is_empty() {
            return value.map(str::to_owned).ok_or_else(|| {
                format!("${{{name}}}: the variable {name} is not set, and there is no default (${{{name}:-default}})")
            });
        }
        if let Some(default) = rest.strip_prefix(":-") {
            return filled.map_or_else(|| self.expand(default), |value| Ok(value.to_owned()));
        }
        if let Some(message) = rest.strip_prefix(":?") {
            return filled.map(str::to_owned).ok_or_else(|| format!("${{{name}}}: {message}"));
        }
        Err(format!("${{{inside}}}: ${{NAME}}, ${{NAME:-default}} or ${{NAME:?message}} is expected"))
    }
}

/// The end of the brace that is open at the start. Other braces may open and close before it.
fn closing_brace(text: &str) -> Option<usize> {
    let mut open = 1_usize;
    for (at, character) in text.char_indices() {
        match character {
            '{' if text[..at].ends_with('$') => open += 1,
            '}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(at);
        }
    }
    None
}
