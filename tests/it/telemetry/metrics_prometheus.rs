//! The Prometheus text format: the documented series, the bound on their number, and the series that the dashboard and
//! the alert rules query.

use std::collections::BTreeSet;

use eventbroker::{Broker, Event, Outcome, Source};
use eventbroker_conformance::loopback::Loopback;

use crate::support::wait_until;

/// The metrics of a broker with a back end, after completed and failed events.
fn text() -> String {
    let loopback = Loopback::new();
    let broker = Broker::builder().provider(loopback.provider()).start().expect("a broker");
    broker
        .subscribe("shop.orders.*", |delivery| match delivery.event().operation() {
            Some("fail") => Outcome::Permanent("no".into()),
            _ => Outcome::Done,
        })
        .expect("a subscription");
    for operation in ["create", "create", "fail"] {
        let event = Event::builder(Source::Database, format!("shop.orders.{operation}"));
        broker.publish(event.build().expect("a valid event")).expect("accepted");
    }
    wait_until("all events are settled", || {
        let stats = broker.stats();
        stats.deliveries.done == 2 && stats.deliveries.dead == 1 && (stats.in_flight, stats.workers_busy) == (0, 0)
    });
    broker.metrics().to_prometheus()
}

/// The series of a text, without their values.
fn series(text: &str) -> Vec<&str> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit_once(' ').expect("a series and its value").0).collect()
}

/// The names of the series, without their labels.
fn names(text: &str) -> BTreeSet<&str> {
    series(text).into_iter().map(|series| series.split('{').next().expect("a name")).collect()
}

#[test]
fn the_series_of_the_original_have_their_names_and_labels() {
    let text = text();
    let has = |line: &str| assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    has(r#"eventbroker_events_published_total{source="database",type="shop.orders.create"} 2"#);
    has(r#"eventbroker_events_processed_total{source="database",type="shop.orders.create",status="completed"} 2"#);
    has(r#"eventbroker_events_processed_total{source="database",type="shop.orders.fail",status="failed"} 1"#);
    has(r#"eventbroker_event_processing_duration_seconds_count{source="database",type="shop.orders.create"} 2"#);
    has(
        r#"eventbroker_event_processing_duration_seconds_bucket{le="+Inf",source="database",type="shop.orders.create"} 2"#,
    );
    has("# TYPE eventbroker_event_processing_duration_seconds histogram");
    has("eventbroker_queue_size 0.0");
    has("eventbroker_workers_active 0.0");
    has(r#"eventbroker_deliveries_total{verdict="dead"} 1"#);
    has("eventbroker_subscriptions 1.0");
    has("# EOF");
}

#[test]
fn exactly_the_documented_series_exist() {
    let page = include_str!("../../../src/telemetry/metrics.rs");
    let rows = page.lines().filter_map(|line| line.strip_prefix("//! | `")).map(|row| row.split(" | ").next());
    let documented: BTreeSet<String> = rows
        .flat_map(|cell| cell.expect("a first column").split(", ").map(|name| name.trim_matches('`').to_owned()))
        .collect();
    let text = text();
    let suffixes = ["_bucket", "_sum", "_count"];
    let plain = |name: &str| {
        let base = suffixes.iter().find_map(|suffix| name.strip_suffix(suffix)).filter(|it| it.ends_with("_seconds"));
        base.unwrap_or(name).to_owned()
    };
    assert_eq!(names(&text).into_iter().map(plain).collect::<BTreeSet<_>>(), documented);
}

#[test]
fn a_million_types_stay_under_two_thousand_series() {
    let broker = Broker::builder().start().expect("a broker");
    for number in 0..1_000_000 {
        let event = Event::builder(Source::System, format!("flood.{number}")).build().expect("a valid event");
        broker.publish(event).expect("accepted");
    }
    let text = broker.metrics().to_prometheus();
    let series = series(&text);
    assert!(series.len() < 2_000, "{} series", series.len());
    assert!(series.contains(&r#"eventbroker_events_published_total{source="_other",type="_other"}"#));
}

#[test]
fn every_series_that_the_dashboard_and_the_alert_rules_query_exists() {
    let text = text();
    let names = names(&text);
    for (file, asks) in [
        ("grafana.json", include_str!("../../../docs/monitoring/grafana.json")),
        ("alerts.yml", include_str!("../../../docs/monitoring/alerts.yml")),
    ] {
        let words = asks.split(|character: char| !character.is_ascii_alphanumeric() && character != '_');
        let asked: BTreeSet<&str> = words.filter(|word| word.starts_with("eventbroker_")).collect();
        assert!(asked.len() >= 4, "{file} queries series");
        for name in asked {
            assert!(names.contains(name), "{file}: no series is called {name}");
        }
    }
}
