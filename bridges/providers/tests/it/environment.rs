//! Environment variables override the file, under the names of the original.

use eventbroker_providers::{Loader, Origin};

#[test]
fn each_key_has_a_variable_that_beats_the_file() {
    let text = "event_broker: { worker_count: 3, buffer_size: 4, nats: { subjects: [a] } }";
    let variables = [
        ("RESOLVESPEC_EVENT_BROKER_WORKER_COUNT", "5"),
        ("RESOLVESPEC_EVENT_BROKER_BUFFER_SIZE", ""),
        ("RESOLVESPEC_EVENT_BROKER_REDIS_PASSWORD", "p$${x}"),
        ("RESOLVESPEC_EVENT_BROKER_NATS_SUBJECTS", "b, c"),
        ("RESOLVESPEC_EVENT_BROKER_RETRY_POLICY_MAX_DELAY", "1m"),
        ("RESOLVESPEC_OTHER", "x"),
    ];
    let variables = variables.map(|it| (it.0.to_owned(), it.1.to_owned()));
    let loaded = Loader::new().yaml("c.yaml", text).environment(variables).load().expect("accepted");
    let config = &loaded.config;
    assert_eq!((config.broker.worker_count, config.broker.retry_policy.max_delay.as_secs()), (5, 60));
    assert_eq!(config.broker.buffer_size, 4, "an empty variable counts as not set");
    assert_eq!(config.redis_server.password.expose(), "p$${x}", "a variable is taken as it is");
    assert_eq!(config.nats_subjects, ["b", "c"]);
    let origin =
        |key: &str| loaded.entries().into_iter().find(|it| it.key == key).map(|it| it.origin).expect("it is a key");
    assert_eq!(origin("event_broker.worker_count"), Origin::Variable("RESOLVESPEC_EVENT_BROKER_WORKER_COUNT".into()));
    assert_eq!(origin("event_broker.buffer_size"), Origin::File { name: "c.yaml".into(), line: 1 });
    assert_eq!(origin("event_broker.mode"), Origin::Default);
}

#[test]
fn no_two_keys_share_a_variable() {
    let entries = Loader::new().environment([]).load().expect("the defaults are good").entries();
    let mut names: Vec<_> = entries.iter().map(|it| it.key.replace('.', "_").to_uppercase()).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
    assert!(all > 30);
}
