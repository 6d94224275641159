//! Cases about stored statuses: which ones a bridge stores by its setting, and what other brokers read. The same for
//! every provider with that setting.

use std::time::Duration;

use eventbroker::provider::Provider;
use eventbroker::query::Filter;
use eventbroker::{Broker, EventId, HandlerError, RetryPolicy, Status, SubscribeOptions};

use crate::watch::{PATIENCE, event, wait_until};

/// The statuses that are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatusSetting {
    /// The final status of each event.
    All,
    /// Only the status of events that failed or were retried.
    Failures,
    /// No status.
    Nothing,
}

fn start(provider: Provider) -> Broker {
    Broker::builder().provider(provider).start().expect("it starts")
}

/// Publishes three events: one is done, one is retried once, one fails permanently. Returns their ids.
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

/// `open` opens a back end of its own, `notes` counts the events with a stored status in it.
///
/// # Panics
/// If the number of stored statuses differs, or another broker reads other statuses.
pub fn statuses_are_stored(kept: StatusSetting, open: impl Fn() -> Provider, notes: impl Fn() -> usize) {
    let (written, statuses, retries) = match kept {
        StatusSetting::All => (3, [Status::Completed, Status::Completed, Status::Failed], [0, 1, 0]),
        StatusSetting::Failures => (2, [Status::Completed, Status::Completed, Status::Failed], [0, 1, 0]),
        StatusSetting::Nothing => (0, [Status::Completed; 3], [0; 3]),
    };
    let broker = start(open());
    let ids = three(&broker);
    assert!(broker.stop(PATIENCE).is_clean());
    assert_eq!(notes(), written, "{kept:?}");
    // Another broker, without these events in its own store.
    let reader = start(open());
    let events = ids.map(|id| reader.get(&id).expect("it answers").expect("it is held"));
    assert_eq!(events.each_ref().map(|event| event.status()), statuses, "{kept:?}");
    assert_eq!(events.each_ref().map(|event| event.retry_count()), retries, "{kept:?}");
    let completed = events.each_ref().map(|event| event.completed_at().is_some());
    assert_eq!(completed, [kept == StatusSetting::All, kept == StatusSetting::All, false], "{kept:?}");
    let failed = reader.list(&Filter { status: Some(Status::Failed), ..Filter::default() }).expect("it answers");
    assert_eq!(failed.events.len(), usize::from(kept != StatusSetting::Nothing), "{kept:?}");
    assert_eq!(reader.dead_letter_count(), Ok(1), "{kept:?}");
    assert!(reader.stop(PATIENCE).is_clean());
}

/// A dead letter can be requeued although no status is stored.
///
/// # Panics
/// If the dead letter is not requeued, or a status is stored.
pub fn requeued_without_notes(provider: Provider, notes: impl Fn() -> usize) {
    let broker = start(provider);
    let [_, _, dead] = three(&broker);
    let letters = broker.dead_letters(&Default::default()).expect("it answers");
    broker.requeue(letters[0].id).expect("it is there");
    wait_until("it has died again", || {
        broker.dead_letters(&Default::default()).is_ok_and(|it| it.iter().any(|it| it.requeues == 1))
    });
    wait_until("nothing is noted", || notes() == 0);
    let event = broker.get(&dead).expect("it answers").expect("it is held");
    assert_eq!(event.status(), Status::Completed);
    assert!(broker.stop(PATIENCE).is_clean());
}
