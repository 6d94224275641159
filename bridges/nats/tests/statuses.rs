//! What is written down of statuses, as the setting says.

mod support;

use std::time::Duration;

use eventbroker::query::Filter;
use eventbroker::{Broker, EventId, HandlerError, RetryPolicy, Status, SubscribeOptions};
use eventbroker_conformance::nats::Server;
use eventbroker_nats::{Nats, Status as Keep};
use support::client::Client;
use support::{PATIENCE, event, start, wait_until};

/// One that is handled, one that is retried once, one that fails for good; their ids.
fn three(broker: &Broker) -> [EventId; 3] {
    let options = SubscribeOptions::new("a.*").name("all").retry(RetryPolicy::fixed(1, Duration::from_millis(1)));
    broker
        .subscribe_with(options, |delivery| match (delivery.event().event_type().as_str(), delivery.attempt()) {
            ("a.dies", _) => Err(HandlerError::permanent("dead")),
            ("a.later", 1) => Err(HandlerError::retry("later")),
            _ => Ok(()),
        })
        .expect("a subscription");
    let ids = ["a.well", "a.later", "a.dies"].map(|name| broker.publish(event(name)).expect("it is accepted").id);
    wait_until("all are settled", || broker.dead_letter_count() == Ok(1));
    wait_until("nothing is left", || broker.stats().bridge.is_some_and(|it| it.leases == 0));
    ids
}

/// How many events the server has notes about.
fn notes(server: &Server) -> usize {
    let asked = r#"{"subjects_filter":"events-state.status.>"}"#;
    let info = Client::of(server).ask("$JS.API.STREAM.INFO.RESOLVESPEC_EVENTS_STATE", "", asked);
    info.matches("\"events-state.status.").count()
}

#[test]
fn only_what_the_setting_says_is_written_down() {
    for (keep, written, statuses, retries) in [
        (Keep::Full, 3, [Status::Completed, Status::Completed, Status::Failed], [0, 1, 0]),
        (Keep::Failures, 2, [Status::Completed, Status::Completed, Status::Failed], [0, 1, 0]),
        (Keep::Off, 0, [Status::Completed; 3], [0; 3]),
    ] {
        let server = Server::start();
        let nats = Nats::new(server.url()).status(keep);
        let broker = start(&nats);
        let ids = three(&broker);
        assert!(broker.stop(PATIENCE).is_clean());
        assert_eq!(notes(&server), written, "{keep:?}");
        // Another one, which has none of them in its own store.
        let reader = start(&nats);
        let events = ids.clone().map(|id| reader.get(&id).expect("it answers").expect("it is held"));
        assert_eq!(events.each_ref().map(|event| event.status()), statuses, "{keep:?}");
        assert_eq!(events.each_ref().map(|event| event.retry_count()), retries, "{keep:?}");
        let completed = events.each_ref().map(|event| event.completed_at().is_some());
        assert_eq!(completed, [keep == Keep::Full, keep == Keep::Full, false], "{keep:?}");
        let failed = reader.list(&Filter { status: Some(Status::Failed), ..Filter::default() }).expect("it answers");
        assert_eq!(failed.events.len(), usize::from(keep != Keep::Off), "{keep:?}");
        assert_eq!(reader.dead_letter_count(), Ok(1), "{keep:?}");
        assert!(reader.stop(PATIENCE).is_clean());
    }
}

/// What is written down nowhere is handled again all the same.
#[test]
fn with_no_notes_dead_letters_are_requeued() {
    let server = Server::start();
    let nats = Nats::new(server.url()).status(Keep::Off);
    let broker = start(&nats);
    let [_, _, dead] = three(&broker);
    let letters = broker.dead_letters(&Default::default()).expect("it answers");
    broker.requeue(letters[0].id).expect("it is there");
    wait_until("it has died again", || {
        broker.dead_letters(&Default::default()).is_ok_and(|it| it.iter().any(|it| it.requeues == 1))
    });
    wait_until("nothing is noted", || notes(&server) == 0);
    let event = broker.get(&dead).expect("it answers").expect("it is held");
    assert_eq!(event.status(), Status::Completed);
    assert!(broker.stop(PATIENCE).is_clean());
}
