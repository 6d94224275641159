//! The configuration is embedded in a larger one that the program deserializes with serde.

use eventbroker_providers::{Config, Loader, Origin};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Program {
    listen: String,
    #[serde(default)]
    event_broker: Config,
}

#[test]
fn it_is_plain_serde_with_the_same_defaults() {
    let text = r#"{ "listen": ":80", "event_broker": { "worker_count": 3, "mode": "sync", "retry_policy": { "backoff_factor": 3 } } }"#;
    let program: Program = serde_json::from_str(text).expect("accepted");
    assert_eq!(program.listen, ":80");
    assert_eq!((program.event_broker.broker.worker_count, program.event_broker.broker.buffer_size), (3, 1000));
    assert_eq!(program.event_broker.broker.retry_policy.backoff_factor, 3.0);
    let without: Program = serde_json::from_str(r#"{ "listen": ":80" }"#).expect("accepted");
    assert_eq!(without.event_broker, Config::default());
}

#[test]
fn all_problems_come_in_one_error() {
    let text = r#"{ "worker_count": 0, "modes": "sync", "redis": { "port": "http" } }"#;
    let error = serde_json::from_str::<Config>(text).expect_err("refused").to_string();
    for expected in [
        "event_broker.worker_count: is \"0\"",
        "event_broker.modes: there is no such key; did you mean mode?",
        "redis.port",
    ] {
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn the_environment_can_be_laid_over_it() {
    let config: Config = serde_json::from_str(r#"{ "worker_count": 3, "buffer_size": 4 }"#).expect("accepted");
    let variables = [("RESOLVESPEC_EVENT_BROKER_BUFFER_SIZE".to_owned(), "5".to_owned())];
    let loaded = Loader::new().config(config).environment(variables).load().expect("accepted");
    assert_eq!((loaded.config.broker.worker_count, loaded.config.broker.buffer_size), (3, 5));
    let given = loaded.entries().into_iter().find(|it| it.key == "event_broker.worker_count").expect("it is a key");
    assert_eq!(given.origin, Origin::Given);
}

#[test]
fn rules_for_two_keys_hold_here_too() {
    let error = serde_json::from_str::<Config>(r#"{ "worker_count": 20, "max_workers": 3 }"#).expect_err("refused");
    assert!(error.to_string().contains("event_broker.max_workers: is 3, at least worker_count (20)"), "{error}");
}
