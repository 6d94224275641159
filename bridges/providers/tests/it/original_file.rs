//! A configuration file of the original is accepted unchanged, and its values keep their meaning.

use std::time::Duration;

use eventbroker::Mode;
use eventbroker_providers::{Config, Loader, ProviderKind, Storage};

/// Every key of the original with a non-default value, and keys of other parts of the program.
const FILE: &str = r#"
server:
  addr: ":8080"
logger: { dev: false }
event_broker:
  enabled: true
  provider: nats
  mode: sync
  worker_count: 20
  buffer_size: 5000
  instance_id: "${HOSTNAME}"
  redis:
    stream_name: "my:events"
    consumer_group: "my-workers"
    max_len: 50000
    host: "redis.example.org"
    port: 6380
    password: "hunter2"
    db: 3
  nats:
    url: "nats://nats.example.org:4222"
    stream_name: "MY_EVENTS"
    subjects:
      - "events.>"
      - "more.>"
    storage: "memory"
    max_age: 168h
  database:
    table_name: "my_events"
    channel: "my_channel"
    poll_interval: 2s
  retry_policy:
    max_retries: 5
    initial_delay: 2s
    max_delay: 1m0s
    backoff_factor: 1.5
"#;

fn load(text: &str) -> Config {
    let host = [("HOSTNAME".to_owned(), "node-7".to_owned())];
    Loader::new().yaml("config.yaml", text).environment(host).load().expect("it is accepted").config
}

#[test]
fn every_key_of_the_original_is_taken() {
    let config = load(FILE);
    assert_eq!((config.enabled, config.provider, config.broker.mode), (true, ProviderKind::Nats, Mode::Sync));
    assert_eq!((config.broker.worker_count, config.broker.buffer_size), (20, 5000));
    assert_eq!(config.broker.instance_id.as_deref(), Some("node-7"));
    let (redis, server) = (&config.redis, &config.redis_server);
    assert_eq!((redis.stream_name.as_str(), redis.consumer_group.as_str()), ("my:events", "my-workers"));
    assert_eq!((redis.max_len, server.host.as_str(), server.port, server.db), (50_000, "redis.example.org", 6380, 3));
    assert_eq!(server.password.expose(), "hunter2");
    let nats = &config.nats;
    assert_eq!((nats.url.expose(), nats.stream_name.as_str()), ("nats://nats.example.org:4222", "MY_EVENTS"));
    assert_eq!(
        (config.nats_subjects.as_slice(), nats.storage),
        (&["events.>".to_owned(), "more.>".to_owned()][..], Storage::Memory)
    );
    assert_eq!(nats.max_age, Duration::from_secs(168 * 3600));
    let (database, notifications) = (&config.database, &config.notifications);
    assert_eq!((database.table_name.as_str(), notifications.channel.as_str()), ("my_events", "my_channel"));
    assert_eq!(notifications.poll_interval, Duration::from_secs(2));
    let retry = &config.broker.retry_policy;
    assert_eq!((retry.max_retries, retry.backoff_factor), (5, 1.5));
    assert_eq!((retry.initial_delay, retry.max_delay), (Duration::from_secs(2), Duration::from_secs(60)));
}

#[test]
fn the_defaults_are_those_of_the_original() {
    for text in ["", "event_broker:", "event_broker: {}", "server: { addr: ':80' }"] {
        let config = load(text);
        assert_eq!(config, Config::default());
        assert_eq!((config.enabled, config.provider, config.broker.mode), (false, ProviderKind::Memory, Mode::Async));
        assert_eq!(
            (config.broker.worker_count, config.broker.buffer_size, config.broker.instance_id.as_deref()),
            (10, 1000, None)
        );
        let (redis, server) = (&config.redis, &config.redis_server);
        assert_eq!(
            (redis.stream_name.as_str(), redis.consumer_group.as_str()),
            ("resolvespec:events", "resolvespec-workers")
        );
        assert_eq!((redis.max_len, server.host.as_str(), server.port), (10_000, "localhost", 6379));
        assert_eq!((server.password.expose(), server.db), ("", 0));
        let nats = &config.nats;
        assert_eq!((nats.url.expose(), nats.stream_name.as_str()), ("nats://localhost:4222", "RESOLVESPEC_EVENTS"));
        assert_eq!((config.nats_subjects.join(","), nats.storage), ("events.>".to_owned(), Storage::File));
        assert_eq!(nats.max_age, Duration::from_secs(24 * 3600));
        let (database, notifications) = (&config.database, &config.notifications);
        assert_eq!((database.table_name.as_str(), notifications.channel.as_str()), ("events", "resolvespec_events"));
        assert_eq!(notifications.poll_interval, Duration::from_secs(1));
        let retry = &config.broker.retry_policy;
        assert_eq!((retry.max_retries, retry.backoff_factor), (3, 2.0));
        assert_eq!((retry.initial_delay, retry.max_delay), (Duration::from_secs(1), Duration::from_secs(30)));
    }
}

#[test]
fn keys_of_our_own_reach_the_broker() {
    let config = load(
        "event_broker:\n  overflow: block 100ms\n  metrics: false\n  max_workers: 12\n  max_waiting: 7\n  max_in_flight: 8\n  max_dead_letters: 9\n  \
         max_payload_bytes: 64\n  sync_timeout: 3s\n  max_handler_time: 4s\n  retry_policy: { jitter: 0 }\n  \
         store: { max_events: 5, max_age: 1h, cleanup_interval: 30s }\n",
    );
    let broker = config.broker;
    assert_eq!(broker.overflow, eventbroker::Overflow::Block(Duration::from_millis(100)));
    assert!(!broker.metrics);
    assert_eq!((broker.max_workers, broker.max_waiting, broker.max_in_flight), (Some(12), 7, 8));
    assert_eq!((broker.max_dead_letters, broker.max_payload_bytes, broker.max_events), (9, 64, 5));
    assert_eq!((broker.sync_timeout, broker.max_handler_time), (Duration::from_secs(3), Duration::from_secs(4)));
    assert_eq!((broker.max_age, broker.cleanup_interval), (Duration::from_secs(3600), Duration::from_secs(30)));
    assert_eq!(broker.retry_policy.jitter, 0.0);
}

#[test]
fn anchors_and_merge_keys_are_followed() {
    let config =
        load("base: &base { worker_count: 3, buffer_size: 7 }\nevent_broker:\n  <<: *base\n  worker_count: 4\n");
    assert_eq!((config.broker.worker_count, config.broker.buffer_size), (4, 7));
}
