//! The template and the JSON Schema contain exactly the keys of the configuration.

use eventbroker_providers::{Config, Loader, schema, template};
use serde_json::Value;

#[test]
fn the_template_is_accepted_and_says_the_defaults() {
    let mut expected = Config::default();
    expected.enabled = true;
    let load = |text: String| Loader::new().yaml("template", text).environment([]).load();
    assert_eq!(load(template()).expect("as it is").config, expected);
    // The template with every key uncommented still holds the defaults.
    let is_key = |line: &str| {
        line.trim_start().strip_prefix("# ").is_some_and(|it| {
            it.split(':').next().is_some_and(|key| key.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
        })
    };
    let uncommented: Vec<String> = template()
        .lines()
        .map(|line| if line.starts_with(' ') && is_key(line) { line.replacen("# ", "", 1) } else { line.to_owned() })
        .collect();
    let loaded = load(uncommented.join("\n")).expect("uncommented");
    assert_eq!(loaded.config, expected);
    let written = loaded.entries().iter().filter(|it| it.origin != eventbroker_providers::Origin::Default).count();
    let nothing =
        ["max_workers", "instance_id", "redis.tls_ca_file", "nats.user", "nats.credentials_file", "nats.tls_ca_file"]
            .len();
    assert_eq!(written, loaded.entries().len() - nothing, "every key is in the template");
}

#[test]
fn the_committed_schema_is_the_one_of_the_keys() {
    let committed: Value = serde_json::from_str(include_str!("../../config.schema.json")).expect("JSON");
    assert!(committed == schema(), "run: eventbroker config schema > bridges/providers/config.schema.json");
}

#[test]
fn the_schema_knows_every_key_and_no_other() {
    let schema = schema();
    let section = &schema["properties"]["event_broker"];
    assert_eq!(section["additionalProperties"], false);
    let entries = Loader::new().environment([]).load().expect("the defaults are good").entries();
    for entry in &entries {
        let mut at = section;
        for name in entry.key.split('.').skip(1) {
            at = &at["properties"][name];
        }
        assert!(at["description"].is_string() && at["anyOf"].is_array(), "{} is missing", entry.key);
    }
    let count = |it: &Value| it["properties"].as_object().map_or(0, |it| it.len());
    let sections = ["retry_policy", "store", "redis", "nats", "database"];
    let inner: usize = sections.iter().map(|name| count(&section["properties"][name])).sum();
    assert_eq!(count(section) - sections.len() + inner, entries.len());
    assert_eq!(section["properties"]["worker_count"]["anyOf"][0]["maximum"], 1024);
}
