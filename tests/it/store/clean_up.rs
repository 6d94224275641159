//! Clean-up removes completed and failed events that are older than `max_age`, and never an open event.

use std::time::{Duration, SystemTime};

use eventbroker::query::Filter;
use eventbroker::{Broker, Config, Event, HandlerError, Source, Status, SubscribeOptions};

use crate::support::{Gate, event, manual_clock, wait_until};

const MINUTE: Duration = Duration::from_secs(60);

fn config() -> Config {
    let mut config = Config::default();
    config.max_age = 60 * MINUTE;
    config.cleanup_interval = MINUTE;
    config.max_events = 8;
    config
}

fn of_age(event_type: &str, age: Duration) -> Event {
    Event::builder(Source::System, event_type).created_at(SystemTime::now() - age).build().expect("valid")
}

fn held(broker: &Broker) -> usize {
    broker.list(&Filter::default()).expect("no back end").events.len()
}

#[test]
fn terminal_events_beyond_max_age_are_removed_and_open_ones_are_kept() {
    let clock = manual_clock();
    let broker = Broker::builder().config(config()).manual_clock(&clock).start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    broker.subscribe_with(SubscribeOptions::new("open").ordered(), move |_| pass.pass()).expect("valid");
    broker.subscribe("bad", |_| Err::<(), _>(HandlerError::permanent("bad"))).expect("valid");

    let open = broker.publish(event("open")).expect("room").id;
    let failed = broker.publish_sync(event("bad")).expect("room").id;
    // These events push the first two out of the ring, so that both generations are cleaned up.
    (0..5).for_each(|_| drop(broker.publish(event("filler")).expect("room")));
    let done = broker.publish(event("nobody")).expect("room").id;
    let young = Event::builder(Source::System, "nobody").created_at(SystemTime::now() + 30 * MINUTE);
    let young = young.build().expect("valid");
    broker.publish(young.clone()).expect("room");
    broker.publish(event("open")).expect("room");
    for held in [&open, &failed, &done, young.id()] {
        assert!(broker.get(held).expect("no back end").is_some());
    }

    clock.advance(61 * MINUTE);
    wait_until("only young and open events are left", || held(&broker) == 3);
    for gone in [&failed, &done] {
        assert_eq!(broker.get(gone).expect("no back end"), None);
    }
    assert!(broker.get(young.id()).expect("no back end").is_some());
    let status = broker.get(&open).expect("no back end").expect("open events stay").status();
    assert!(matches!(status, Status::Pending | Status::Processing), "{status}");
    assert_eq!(broker.dead_letter_count().expect("the back end answers"), 1, "dead letters have a bound of their own");

    gate.open();
    wait_until("the open events are settled", || broker.stats().in_flight == 0);
    clock.advance(MINUTE);
    wait_until("they are removed too", || held(&broker) == 1);
    let stats = broker.stats();
    assert_eq!((stats.accepted, stats.completed, stats.failed), (11, 10, 1), "clean-up does not change totals");
}

#[test]
fn an_id_is_new_again_after_clean_up() {
    let clock = manual_clock();
    let broker = Broker::builder().config(config()).manual_clock(&clock).start().expect("valid settings");
    let [own, foreign] = [of_age("x", 61 * MINUTE), {
        let builder = Event::builder(Source::System, "x").id("foreign");
        builder.created_at(SystemTime::now() - 61 * MINUTE).build().expect("valid")
    }];
    for event in [&own, &foreign] {
        assert!(!broker.publish(event.clone()).expect("room").duplicate);
        assert!(broker.publish(event.clone()).expect("room").duplicate);
    }
    clock.advance(MINUTE);
    wait_until("both events are removed", || held(&broker) == 0);
    for event in [&own, &foreign] {
        assert!(!broker.publish(event.clone()).expect("room").duplicate);
        assert!(broker.get(event.id()).expect("no back end").is_some());
    }
    assert_eq!(broker.store_stats().events, 2);
}
