//! The broker accepts every value that the configuration accepts, at both ends of each bound.

use eventbroker::Broker;
use eventbroker_providers::{Config, Loader};

fn load(path: &str, value: &str) -> Result<Config, String> {
    let text = match path.split_once('.') {
        Some((section, key)) => format!("event_broker: {{ {section}: {{ {key}: {value} }} }}"),
        None => format!("event_broker: {{ {path}: {value} }}"),
    };
    let loaded = Loader::new().yaml("c.yaml", text).environment([]).load();
    loaded.map(|it| it.config).map_err(|error| error.to_string())
}

#[test]
fn both_ends_of_each_bound_build_a_broker_and_what_is_outside_is_refused() {
    let (longest, too_long) = ("x".repeat(255), "x".repeat(256));
    for (path, low, high, outside) in [
        ("worker_count", "1", "1024", ["0", "1025"]),
        ("max_workers", "10", "4096", ["9", "4097"]),
        ("buffer_size", "1", "16777216", ["0", "16777217"]),
        ("max_waiting", "1", "16777216", ["0", "16777217"]),
        ("max_in_flight", "1", "100000000", ["0", "100000001"]),
        ("max_dead_letters", "1", "16777216", ["0", "16777217"]),
        ("max_payload_bytes", "4", "1073741824", ["3", "1073741825"]),
        ("store.max_events", "1", "100000000", ["0", "100000001"]),
        ("store.max_age", "1ms", "87600h", ["999us", "87601h"]),
        ("store.cleanup_interval", "1ms", "168h", ["999us", "169h"]),
        ("max_handler_time", "1ms", "168h", ["0", "169h"]),
        ("sync_timeout", "0", "168h", ["-1s", "169h"]),
        ("retry_policy.max_retries", "0", "4294967295", ["-1", "4294967296"]),
        ("retry_policy.backoff_factor", "1", "100.0", ["0.9", "100.1"]),
        ("retry_policy.jitter", "0", "1", ["-0.1", "1.1"]),
        ("retry_policy.max_delay", "1s", "168h", ["999ms", "169h"]),
        ("instance_id", "a", longest.as_str(), [too_long.as_str(), too_long.as_str()]),
        ("shutdown_timeout", "0", "168h", ["-1s", "169h"]),
        ("retry_policy.initial_delay", "0", "30s", ["31s", "169h"]),
        ("redis.port", "1", "65535", ["0", "65536"]),
        ("redis.db", "0", "2147483647", ["-1", "2147483648"]),
        ("redis.max_len", "0", "9223372036854775807", ["-1", "9223372036854775808"]),
        ("redis.min_replicas", "0", "100", ["-1", "101"]),
        ("redis.replica_timeout", "1ms", "5s", ["0", "5001ms"]),
        ("redis.lease_time", "100ms", "168h", ["99ms", "169h"]),
        ("redis.dedupe_window", "1s", "168h", ["999ms", "169h"]),
        ("redis.retention", "1s", "87600h", ["999ms", "87601h"]),
        ("redis.idle_expiry", "1s", "87600h", ["999ms", "87601h"]),
        ("redis.max_backlog", "0", "9223372036854775807", ["-1", "9223372036854775808"]),
        ("redis.partitions", "0", "64", ["-1", "65"]),
        ("redis.host", "a", longest.as_str(), [too_long.as_str(), "''"]),
        ("nats.max_age", "1ms", "87600h", ["999us", "87601h"]),
        ("nats.replicas", "1", "5", ["0", "6"]),
        ("nats.lease_time", "100ms", "168h", ["99ms", "169h"]),
        ("nats.partitions", "0", "64", ["-1", "65"]),
        ("nats.max_messages", "0", "9223372036854775807", ["-1", "9223372036854775808"]),
        ("database.poll_interval", "1ms", "168h", ["999us", "169h"]),
        ("database.max_connections", "1", "5", ["0", "6"]),
        ("database.lease_time", "100ms", "168h", ["99ms", "169h"]),
        ("database.retention", "1ms", "87600h", ["999us", "87601h"]),
        ("database.idle_expiry", "1s", "87600h", ["999ms", "87601h"]),
        ("database.max_backlog", "1", "9223372036854775807", ["0", "9223372036854775808"]),
    ] {
        // The upper bound of `store.max_events` would allocate its memory at start.
        for good in [low, if path == "store.max_events" { "100000" } else { high }] {
            let config = load(path, good).unwrap_or_else(|error| panic!("{path}: {error}"));
            let built = Broker::builder().config(config.broker).build();
            assert!(built.is_ok(), "{path} = {good}: {built:?}");
        }
        for bad in outside {
            assert!(load(path, bad).is_err(), "{path} = {bad} is accepted");
        }
    }
}
