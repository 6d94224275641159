//! Loads one configuration from a file, the environment and the defaults. It remembers the source of each value.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs};

use eventbroker_bridge_kit::settings::Key;

use crate::apply::{self, Origins};
use crate::config::Config;
use crate::error::{ConfigError, ConfigProblem, Place, Source};
use crate::expand::Variables;
use crate::keys::{self, SECTION};
use crate::yaml::{Content, Node};

/// The largest configuration file, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Loads a configuration: a variable of the environment beats the file, which beats the default.
///
/// The variable of a key is `RESOLVESPEC_EVENT_BROKER_` and its path in capitals with `_` for `.`, as
/// `RESOLVESPEC_EVENT_BROKER_REDIS_HOST`; an empty one counts as not set.
///
/// ```
/// use eventbroker_providers::Loader;
///
/// let loaded = Loader::new()
///     .yaml("app.yaml", "event_broker: { worker_count: 4, instance_id: '${HOSTNAME}' }")
///     .environment([
///         ("HOSTNAME".to_owned(), "shop-1".to_owned()),
///         ("RESOLVESPEC_EVENT_BROKER_WORKER_COUNT".to_owned(), "8".to_owned()),
///     ])
///     .load()?;
/// assert_eq!(loaded.config.broker.worker_count, 8);
/// assert_eq!(loaded.config.broker.instance_id.as_deref(), Some("shop-1"));
/// # Ok::<(), eventbroker_providers::ConfigError>(())
/// ```
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Loader {
    from: From,
    variables: Option<Variables>,
}

#[derive(Debug, Clone, Default)]
enum From {
    #[default]
    Defaults,
    File(PathBuf),
    Text(Source),
    Config(Box<Config>),
}

impl Loader {
    /// The defaults, overlaid by the environment of this process.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a YAML file of at most 1 MiB. Only its section `event_broker` counts.
    pub fn file(mut self, path: impl AsRef<Path>) -> Self {
        self.from = From::File(path.as_ref().to_owned());
        self
    }

    /// Reads a YAML text; the name is for errors.
    pub fn yaml(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.from = From::Text(Source { name: name.into(), text: text.into() });
        self
    }

    /// Takes a configuration that was deserialised as a part of a larger one.
    pub fn config(mut self, config: Config) -> Self {
        self.from = From::Config(Box::new(config));
        self
    }

    /// Takes these variables instead of the environment of this process, for `${…}` and for the overlay.
    pub fn environment(mut self, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        self.variables = Some(Variables::of(variables));
        self
    }

    /// Loads. Blocks for the file at most.
    ///
    /// # Errors
    /// [`ConfigError`] with every problem, each with file, line, column and an excerpt.
    pub fn load(self) -> Result<Loaded, ConfigError> {
        let variables = self.variables.unwrap_or_else(Variables::of_process);
        let (mut config, mut origins, mut problems) = (Config::default(), Origins::new(), Vec::new());
        let source = match self.from {
            From::Defaults => None,
            From::Config(given) => {
                config = *given;
                None
            }
            From::Text(source) => Some(source),
            From::File(path) => Some(read(&path).map_err(|problem| ConfigError::new(vec![problem]))?),
        };
        if let Some(source) = &source {
            match Node::parse(&source.text) {
                Ok(root) => {
                    if let Some(section) = section(&root) {
                        apply::apply(&mut config, section, Some(source), &variables, &mut problems, &mut origins);
                    }
                }
                Err(malformed) => problems.push(ConfigProblem {
                    place: source.place_of_malformed(malformed.position),
                    key: String::new(),
                    message: format!("this is no YAML: {}", malformed.message),
                }),
            }
        }
        apply::overlay(&mut config, &variables, &mut problems, &mut origins);
        if problems.is_empty() {
            apply::check(&config, source.as_ref(), &origins, &mut problems);
        }
        if problems.is_empty() { Ok(Loaded { config, origins }) } else { Err(ConfigError::new(problems)) }
    }
}

fn section(root: &Node) -> Option<&Node> {
    match &root.content {
        Content::Map(entries) => entries.iter().find(|entry| entry.key == SECTION).map(|entry| &*entry.value),
        // A text without keys has no such section. The program that owns the text judges that.
        Content::Nothing | Content::Text(_) | Content::List(_) => None,
    }
}

fn read(path: &Path) -> Result<Source, ConfigProblem> {
    let name = path.display().to_string();
    let problem =
        |message: String| ConfigProblem { place: Place::File { file: name.clone() }, key: String::new(), message };
    let size = fs::metadata(path).map_err(|error| problem(format!("cannot be read: {error}")))?.len();
    if size > MAX_FILE_BYTES {
        return Err(problem(format!("is {size} bytes long, at most {MAX_FILE_BYTES} are allowed")));
    }
    let text = fs::read_to_string(path).map_err(|error| problem(format!("cannot be read: {error}")))?;
    Ok(Source { name, text })
}

/// A configuration with the sources of its values.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Loaded {
    /// The effective settings.
    pub config: Config,
    origins: Origins,
}

impl Loaded {
    /// Every key with its effective value and its source, in the order of the template.
    pub fn entries(&self) -> Vec<Entry> {
        let mut config = self.config.clone();
        let mut defaults = Config::default();
        let entry = |key: Key<Config>| {
            let value = key.field(&mut config).show();
            let unset = if value == key.field(&mut defaults).show() { Origin::Default } else { Origin::Given };
            let origin = self.origins.get(&key.path).map_or(unset, |set| set.origin.clone());
            Entry { key: format!("{SECTION}.{}", key.path), value, origin }
        };
        keys::keys().into_iter().map(entry).collect()
    }
}

/// A key with its effective value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// The key with its whole path.
    pub key: String,
    /// Its value, as it would be written in a file; a secret is `***`.
    pub value: String,
    /// The source of the value.
    pub origin: Origin,
}

/// The source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Origin {
    /// The default.
    Default,
    /// The configuration that was given.
    Given,
    /// A line of a file.
    File {
        /// The file.
        name: Arc<str>,
        /// The line, counted from 1.
        line: usize,
    },
    /// A variable of the environment.
    Variable(Arc<str>),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Given => f.write_str("given"),
            Self::File { name, line } => write!(f, "{name}:{line}"),
            Self::Variable(name) => write!(f, "${name}"),
        }
    }
}
