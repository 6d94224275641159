//! One error reports all problems, each with its file, line, column, excerpt, key, value and bound.

use eventbroker_providers::{ConfigError, Loader, Place};
use proptest::prelude::*;

fn errors(text: &str, variables: &[(&str, &str)]) -> ConfigError {
    let variables = variables.iter().map(|it| (it.0.to_owned(), it.1.to_owned()));
    Loader::new().yaml("app.yaml", text).environment(variables).load().expect_err("refused")
}

#[test]
fn all_problems_are_told_at_once_each_with_its_place() {
    let text = "other: 1\nevent_broker:\n  worker_cuont: 3\n  buffer_size: many\n  redis:\n    port: 70000\n    max_events: 3\n";
    let error = errors(text, &[("RESOLVESPEC_EVENT_BROKER_NATS_MAX_AGE", "old")]);
    let expected = "\
app.yaml:3:3: event_broker.worker_cuont: there is no such key; did you mean worker_count?
  3 |   worker_cuont…
    |   ^^^^^^^^^^^^
app.yaml:4:16: event_broker.buffer_size: is \"many\", required is a whole number, 1 to 16777216
  4 |   buffer_size: many
    |                ^^^^
app.yaml:6:11: event_broker.redis.port: is \"70000\", required is a whole number, 1 to 65535
  6 |     port: 70000
    |           ^^^^^
app.yaml:7:5: event_broker.redis.max_events: there is no such key; did you mean max_len?
  7 |     max_events…
    |     ^^^^^^^^^^
variable RESOLVESPEC_EVENT_BROKER_NATS_MAX_AGE: event_broker.nats.max_age: is \"old\", required is a duration with its unit \
(250ms, 1s, 1h30m), 1ms to 87600h";
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.problems().len(), 5);
    let Place::Text { line, column, width, .. } = &error.problems()[1].place else { panic!("no place in the text") };
    assert_eq!((*line, *column, *width), (4, 16, 4));
    assert_eq!(error.problems()[1].key, "event_broker.buffer_size");
}

#[test]
fn a_variable_that_names_no_key_is_refused_with_the_nearest() {
    let error = errors("", &[("RESOLVESPEC_EVENT_BROKER_WORKERCOUNT", "3")]).to_string();
    assert!(error.starts_with("variable RESOLVESPEC_EVENT_BROKER_WORKERCOUNT: "), "{error}");
    assert!(error.ends_with("did you mean RESOLVESPEC_EVENT_BROKER_WORKER_COUNT?"), "{error}");
}

#[test]
fn a_key_at_the_wrong_place_is_told_where_it_belongs() {
    let error = errors("event_broker:\n  subjects: [a]\n", &[]).to_string();
    assert!(error.contains("event_broker.subjects: there is no such key; did you mean nats.subjects?"), "{error}");
}

#[test]
fn a_rule_for_two_keys_points_at_the_one_that_was_set() {
    let error = errors("event_broker:\n  worker_count: 20\n  max_workers: 3\n", &[]).to_string();
    assert!(error.starts_with("app.yaml:3:16: event_broker.max_workers: is 3, at least"), "{error}");
}

#[test]
fn what_is_no_yaml_is_told_with_its_place() {
    for (text, place, message) in [
        ("event_broker:\n  mode: [async\n", "app.yaml:3:1: ", "this is no YAML"),
        ("event_broker:\n  mode: sync\n  mode: async\n", "app.yaml:3:3: ", "the key mode is given twice"),
        ("a: 1\n---\nb: 2\n", "app.yaml:2:1: ", "a second document begins"),
        ("event_broker: [1, 2]\n", "app.yaml:1:15: ", "must hold keys and values"),
    ] {
        let error = errors(text, &[]).to_string();
        assert!(error.starts_with(place) && error.contains(message), "{text}: {error}");
    }
}

#[test]
fn deep_nesting_is_refused() {
    let text = format!("a: {}{}", "[".repeat(100), "]".repeat(100));
    let error = errors(&text, &[]).to_string();
    assert!(error.contains("nested more than 64 levels deep"), "{error}");
}

#[test]
fn a_file_that_is_not_there_or_too_large_is_told_by_name() {
    let missing = Loader::new().file("/nowhere/app.yaml").load().expect_err("refused").to_string();
    assert!(missing.starts_with("/nowhere/app.yaml: cannot be read: "), "{missing}");
    let path = std::env::temp_dir().join(format!("eventbroker-large-{}.yaml", std::process::id()));
    std::fs::write(&path, " ".repeat((1 << 20) + 1)).expect("written");
    let large = Loader::new().file(&path).load().expect_err("refused").to_string();
    std::fs::remove_file(&path).expect("removed");
    assert!(large.ends_with("is 1048577 bytes long, at most 1048576 are allowed"), "{large}");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "(event_broker:\n)?([ a-z_:\\-\\[\\]{}&*!|>'\"%@`#,?$\n\tµ0-9]|worker_count: |redis:\n|<<: ){0,60}") {
        let outcome = Loader::new().yaml("any.yaml", text).environment([]).load();
        if let Err(error) = outcome {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}
