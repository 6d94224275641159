//! Values that failed in the original are accepted if they have a sane meaning. Others are rejected with the reason.

use std::time::Duration;

use eventbroker::Mode;
use eventbroker_providers::{ConfigError, Loaded, Loader, ProviderKind};

fn load(section: &str) -> Result<Loaded, ConfigError> {
    Loader::new().yaml("c.yaml", format!("event_broker: {{ {section} }}")).environment([]).load()
}

#[test]
fn no_retries_turns_retries_off() {
    assert_eq!(load("retry_policy: { max_retries: 0 }").expect("accepted").config.broker.retry_policy.max_retries, 0);
}

#[test]
fn the_case_of_words_does_not_matter() {
    let config = load("provider: Redis, mode: SYNC").expect("accepted").config;
    assert_eq!((config.provider, config.broker.mode), (ProviderKind::Redis, Mode::Sync));
}

#[test]
fn a_stream_without_limit_is_one() {
    assert_eq!(load("redis: { max_len: 0 }").expect("accepted").config.redis.max_len, 0);
}

#[test]
fn the_clean_up_does_not_follow_the_poll_interval() {
    let config = load("database: { poll_interval: 1s }").expect("accepted").config;
    assert_eq!(config.broker.cleanup_interval, Duration::from_secs(300));
}

#[test]
fn a_database_takes_a_url_and_needs_it() {
    for url in ["sqlite:/var/lib/events.db", "postgres://me@db/events", "postgresql://db/events"] {
        let config = load(&format!("provider: database, database: {{ url: '{url}' }}")).expect("accepted").config;
        assert_eq!(config.database_url.expose(), url);
    }
    let missing = load("provider: database").expect_err("refused").to_string();
    assert!(missing.contains("event_broker.database.url: is required by provider database"), "{missing}");
    let other = load("provider: database, database: { url: 'mysql://me:hunter2@db/events' }").expect_err("refused");
    assert!(other.to_string().contains("must begin with sqlite: or postgres:"), "{other}");
    assert!(!other.to_string().contains("hunter2"), "{other}");
}

#[test]
fn what_has_no_sane_meaning_is_refused_with_the_reason() {
    for (section, expected) in [
        ("retry_policy: { max_retries: -1 }", "0 turns retries off"),
        ("retry_policy: { max_delay: 0 }", "0 would retry without any delay"),
        ("retry_policy: { backoff_factor: 0.5 }", "below 1 delays would shrink"),
        ("buffer_size: -1", "is \"-1\", required is a whole number, 1 to 16777216"),
        ("worker_count: -1", "is \"-1\", required is a whole number, 1 to 1024"),
        ("worker_count: 0", "is \"0\", required is a whole number, 1 to 1024"),
        ("mode: synk", "required is async or sync; did you mean sync?"),
        ("provider: rediss", "required is memory or redis or nats or database; did you mean redis?"),
        ("sync_timeout: 1500", "a duration with its unit"),
        ("retry_policy: { initial_delay: 31s }", "which is longer than max_delay (30s)"),
        ("worker_count: 20, max_workers: 19", "is 19, at least worker_count (20) is required"),
        ("overflow: block", "block with a duration (block 100ms)"),
        ("nats: { subjects: [] }", "a list of texts, at least one"),
        ("worker_count: [1]", "required is a whole number"),
        ("redis: 7", "must hold keys and values"),
        // Settings of earlier versions.
        ("nats: { confirm_acks: true }", "event_broker.nats.confirm_acks: there is no such key"),
        ("redis: { cloud_events: true }", "event_broker.redis.cloud_events: there is no such key"),
        ("redis: { status: off }", "is \"off\", required is full or failures"),
    ] {
        let error = load(section).expect_err("refused").to_string();
        assert!(error.contains(expected), "{section}: {error}");
    }
}
