//! The table of keys for people and for editors: a commented template, and a JSON Schema.

use eventbroker_bridge_kit::settings::{Key, Measure};
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::keys::{self, SECTION};

/// A YAML file with every key, its meaning and its default. Only the keys that a broker needs are not commented out.
pub fn template() -> String {
    let (mut config, keys) = (Config::default(), keys::keys());
    let mut text = format!(
        "# yaml-language-server: $schema=config.schema.json\n\
         # A value may hold ${{NAME}}, ${{NAME:-default}} or ${{NAME:?message}}. A variable of the environment overlays a key:\n\
         # {}, and so on.\n{SECTION}:\n",
        keys::variable(&keys[3])
    );
    let mut section = "";
    for key in &keys {
        let (inside, name) = key.path.split_once('.').unwrap_or(("", &key.path));
        if inside != section {
            text += &format!("\n  {inside}:\n");
            section = inside;
        }
        let indent = if inside.is_empty() { "  " } else { "    " };
        let value = if key.path == "enabled" { "true".to_owned() } else { written(key, &mut config) };
        // A section must not be empty, and its keys must stay where they are when they are uncommented.
        let mark = if key.path == "enabled" { "" } else { "# " };
        text += &format!("{indent}# {}.{}\n", key.meaning, bounds(key));
        text += format!("{indent}{mark}{name}: {value}").trim_end();
        text.push('\n');
    }
    text
}

/// The default as it stands in a YAML file.
fn written(key: &Key<Config>, config: &mut Config) -> String {
    let setting = key.field(config);
    let (shown, kind) = (setting.show(), setting.schema());
    if kind["type"] == json!(["array", "string"]) {
        return format!("[{}]", shown.split(',').map(|item| format!("{item:?}")).collect::<Vec<_>>().join(", "));
    }
    if shown.is_empty() && key.secret {
        return "\"\"".to_owned();
    }
    let plain = |it: char| it.is_ascii_alphanumeric() || matches!(it, '_' | '.' | '-' | ' ');
    if shown.chars().all(plain) { shown } else { format!("{shown:?}") }
}

fn bounds(key: &Key<Config>) -> String {
    match &key.bounds {
        Some((Measure::Bytes(min), Measure::Bytes(max))) => format!(" {min} to {max} bytes."),
        Some((min, max)) => format!(" {min} to {max}."),
        None => String::new(),
    }
}

/// The JSON Schema of a configuration file, for editors and checks. Other top-level keys are left to their owners.
pub fn schema() -> Value {
    let mut config = Config::default();
    let mut properties = Map::new();
    for key in keys::keys() {
        let schema = schema_of(&key, &mut config);
        match key.path.split_once('.') {
            None => {
                properties.insert(key.path, schema);
            }
            Some((section, name)) => {
                let section = properties.entry(section).or_insert_with(
                    || json!({ "type": ["object", "null"], "additionalProperties": false, "properties": {} }),
                );
                section["properties"][name] = schema;
            }
        }
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration of an event broker",
        "type": "object",
        "properties": {
            (SECTION): { "type": ["object", "null"], "additionalProperties": false, "properties": properties }
        }
    })
}

fn schema_of(key: &Key<Config>, config: &mut Config) -> Value {
    let setting = key.field(config);
    let mut value = setting.schema();
    match (&key.bounds, value["type"].as_str()) {
        (Some((Measure::Whole(min), Measure::Whole(max))), Some("integer")) => {
            value["minimum"] = json!(min);
            value["maximum"] = json!(max);
        }
        (Some((Measure::Real(min), Measure::Real(max))), Some("number")) => {
            value["minimum"] = json!(min);
            value["maximum"] = json!(max);
        }
        _ => {}
    }
    // A text that is expanded may stand for a value of any type. An empty value is the default.
    let expanded = json!({ "type": "string", "pattern": r"\$\{" });
    json!({ "description": format!("{}.{}", key.meaning, bounds(key)), "anyOf": [value, expanded, { "type": "null" }] })
}
