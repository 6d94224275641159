//! Sets the values of the configuration, from files, variables and serde alike. Every problem is collected.

use std::collections::BTreeMap;
use std::sync::Arc;

use eventbroker_bridge_kit::settings::Key;

use crate::config::{Config, ProviderKind};
use crate::error::{ConfigProblem, Place, Source};
use crate::expand::Variables;
use crate::keys::{self, PREFIX, SECTION, nearest};
use crate::load::Origin;
use crate::yaml::{Content, Entry, Node};

/// The source of each value, by path. A path that is not in it has its default.
pub(crate) type Origins = BTreeMap<String, Set>;

/// The source of a value, and the place that its problems name.
#[derive(Debug, Clone)]
pub(crate) struct Set {
    pub(crate) origin: Origin,
    pub(crate) place: Place,
}

/// Applies the section of a tree.
pub(crate) fn apply(
    config: &mut Config,
    section: &Node,
    source: Option<&Source>,
    variables: &Variables,
    problems: &mut Vec<ConfigProblem>,
    origins: &mut Origins,
) {
    let keys = keys::keys();
    Walk { config, source, variables, problems, origins, keys: &keys }.section("", section);
}

/// Overlays the variables that begin with the prefix. An empty one counts as not set, as in the original.
pub(crate) fn overlay(
    config: &mut Config,
    variables: &Variables,
    problems: &mut Vec<ConfigProblem>,
    origins: &mut Origins,
) {
    let keys = keys::keys();
    let names: Vec<_> = keys.iter().map(|key| (keys::variable(key), key)).collect();
    for (name, text) in variables.with_prefix(PREFIX).filter(|it| !it.1.is_empty()) {
        let place = Place::Variable { name: name.to_owned() };
        match names.iter().find(|it| it.0 == name) {
            Some((_, key)) => match set(config, key, text) {
                Ok(()) => {
                    origins.insert(key.path.clone(), Set { origin: Origin::Variable(name.into()), place });
                }
                Err(message) => problems.push(ConfigProblem { place, key: path_of(key), message }),
            },
            None => {
                let hint = nearest(name, names.iter().map(|it| it.0.as_str()));
                let message = unknown("no key has this name", hint);
                problems.push(ConfigProblem { place, key: String::new(), message });
            }
        }
    }
}

/// The rules that concern several keys. They are checked when each value is valid by itself.
pub(crate) fn check(config: &Config, source: Option<&Source>, origins: &Origins, problems: &mut Vec<ConfigProblem>) {
    let mut complain = |path: &str, message: String| {
        let place = match (origins.get(path), source) {
            (Some(set), _) => set.place.clone(),
            (None, Some(source)) => Place::File { file: source.name.clone() },
            (None, None) => Place::Unknown,
        };
        problems.push(ConfigProblem { place, key: format!("{SECTION}.{path}"), message });
    };
    if let Some(max) = config.broker.max_workers.filter(|max| *max < config.broker.worker_count) {
        complain(
            "max_workers",
            format!("is {max}, at least worker_count ({}) is required", config.broker.worker_count),
        );
    }
    let retry = &config.broker.retry_policy;
    if retry.initial_delay > retry.max_delay {
        let message = format!("is {:?}, which is longer than max_delay ({:?})", retry.initial_delay, retry.max_delay);
        complain("retry_policy.initial_delay", message);
    }
    let url = config.database_url.expose();
    if config.provider == ProviderKind::Database && url.is_empty() {
        complain("database.url", "is required by provider database: sqlite:PATH or postgres://…".to_owned());
    } else if !url.is_empty() && !["sqlite:", "postgres:", "postgresql:"].iter().any(|it| url.starts_with(it)) {
        complain("database.url", "must begin with sqlite: or postgres:".to_owned());
    }
}

struct Walk<'a> {
    config: &'a mut Config,
    source: Option<&'a Source>,
    variables: &'a Variables,
    problems: &'a mut Vec<ConfigProblem>,
    origins: &'a mut Origins,
    keys: &'a [Key<Config>],
}

impl Walk<'_> {
    /// The entries below a path, which is empty or ends with a dot.
    fn section(&mut self, path: &str, section: &Node) {
        let entries = match &section.content {
            Content::Map(entries) => entries,
            Content::Nothing => return,
            Content::Text(_) | Content::List(_) => {
                let (place, key) = (self.place_of(section, None), format!("{SECTION}.{path}"));
                return self.complain(place, key.trim_end_matches('.'), "must hold keys and values".to_owned());
            }
        };
        for entry in entries {
            let full = format!("{path}{}", entry.key);
            let (keys, inside) = (self.keys, format!("{full}."));
            if let Some(key) = keys.iter().find(|key| key.path == full) {
                self.value(key, &entry.value);
            } else if keys.iter().any(|key| key.path.starts_with(&inside)) {
                self.section(&inside, &entry.value);
            } else {
                self.unknown_key(path, entry);
            }
        }
    }

    fn unknown_key(&mut self, path: &str, entry: &Entry) {
        let siblings: Vec<_> =
            self.keys.iter().filter_map(|key| key.path.strip_prefix(path)?.split('.').next()).collect();
        // The key may exist at another place.
        let elsewhere = self.keys.iter().find(|key| key.path.rsplit('.').next() == Some(entry.key.as_str()));
        let hint = nearest(&entry.key, siblings).or(elsewhere.map(|key| &*key.path));
        let place = match (self.source, entry.position) {
            (Some(source), Some(position)) => source.place_before_value(position),
            _ => Place::Unknown,
        };
        self.complain(place, &format!("{SECTION}.{path}{}", entry.key), unknown("there is no such key", hint));
    }

    fn value(&mut self, key: &Key<Config>, node: &Node) {
        let place = self.place_of(node, Some(key));
        let outcome = match &node.content {
            Content::Nothing => return,
            Content::Text(text) => self.variables.expand(text).and_then(|text| set(self.config, key, &text)),
            Content::List(items) => self.list(key, items),
            Content::Map(_) => Err(format!("holds keys and values, required is {}", key.expected(self.config))),
        };
        match outcome {
            Ok(()) => {
                let origin = match (&place, self.source) {
                    (Place::Text { line, .. }, Some(source)) => {
                        Origin::File { name: Arc::from(source.name.as_str()), line: *line }
                    }
                    _ => Origin::Given,
                };
                self.origins.insert(key.path.clone(), Set { origin, place });
            }
            Err(message) => self.complain(place, &path_of(key), message),
        }
    }

    fn list(&mut self, key: &Key<Config>, items: &[std::rc::Rc<Node>]) -> Result<(), String> {
        let mut texts = Vec::new();
        for item in items {
            match &item.content {
                Content::Text(text) => texts.push(self.variables.expand(text)?),
                _ => return Err(format!("holds something that is no text, required is {}", key.expected(self.config))),
            }
        }
        if key.field(self.config).read_list(texts) {
            return Ok(());
        }
        Err(format!("is a list of {}, required is {}", items.len(), key.expected(self.config)))
    }

    fn place_of(&self, node: &Node, key: Option<&Key<Config>>) -> Place {
        match (self.source, node.position) {
            (Some(source), Some(position)) if key.is_some_and(|key| !key.secret) => source.place(position),
            (Some(source), Some(position)) => source.place_of_secret(position),
            _ => Place::Unknown,
        }
    }

    fn complain(&mut self, place: Place, key: &str, message: String) {
        self.problems.push(ConfigProblem { place, key: key.to_owned(), message });
    }
}

/// Sets one value. An invalid one becomes a problem, and the old value stays.
fn set(config: &mut Config, key: &Key<Config>, text: &str) -> Result<(), String> {
    let mut changed = config.clone();
    let setting = key.field(&mut changed);
    if setting.read(text) && setting.measure().is_none_or(|it| key.fits(it)) {
        *config = changed;
        return Ok(());
    }
    let expected = key.expected(config);
    if key.secret {
        return Err(format!("required is {expected}"));
    }
    let words = key.field(config).expected();
    let hint = match nearest(text, words.split(" or ").filter(|word| !word.contains(' '))) {
        Some(word) if words.contains(" or ") => format!("; did you mean {word}?"),
        _ => String::new(),
    };
    let shown: String = text.chars().take(100).collect();
    Err(format!("is {shown:?}, required is {expected}{hint}"))
}

fn path_of(key: &Key<Config>) -> String {
    format!("{SECTION}.{}", key.path)
}

fn unknown(what: &str, hint: Option<&str>) -> String {
    hint.map_or_else(|| what.to_owned(), |hint| format!("{what}; did you mean {hint}?"))
}
