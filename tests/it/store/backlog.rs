//! A backlog of open events beyond `max_events`: the store holds all of them. Of the terminal events it keeps the
//! latest `max_events`; a large store evicts by the run and keeps up to 64 fewer.

use eventbroker::{Broker, EventId, Status, SubscribeOptions};

use crate::support::{Gate, PATIENCE, Settlements, event};

/// Large enough for a store that evicts by the run.
const MAX_EVENTS: usize = 5_000;
const BACKLOG: usize = 20_000;

#[test]
fn of_a_backlog_the_latest_terminal_events_are_kept() {
    let broker = Broker::builder().max_events(MAX_EVENTS).start().expect("valid settings");
    let gate = Gate::closed();
    let pass = gate.clone();
    let options = SubscribeOptions::new("backlog").ordered().queue_capacity(BACKLOG);
    broker.subscribe_with(options, move |_| pass.pass()).expect("valid options");
    let settlements = Settlements::of(&broker);
    let ids: Vec<EventId> = (0..BACKLOG).map(|_| broker.publish(event("backlog")).expect("room").id).collect();
    let store = broker.store_stats();
    assert_eq!((store.events, store.pending + store.processing), (BACKLOG as u64, BACKLOG as u64));
    let status = |id: &EventId| broker.get(id).expect("no back end").map(|event| event.status());
    assert_eq!(status(&ids[BACKLOG / 2]), Some(Status::Pending));

    gate.open();
    ids.iter().for_each(|id| assert_eq!(settlements.next().id, *id));
    assert!(broker.stop(PATIENCE).is_clean());
    let store = broker.store_stats();
    assert_eq!(store.events, store.completed);
    let stay = store.events as usize;
    assert!((MAX_EVENTS - 64..=MAX_EVENTS).contains(&stay), "{stay}");
    // The event that was read took the place of the oldest of the others.
    assert_eq!(status(&ids[BACKLOG / 2]), Some(Status::Completed));
    let held = |ids: &[EventId]| ids.iter().filter(|id| status(id) == Some(Status::Completed)).count();
    assert_eq!(held(&ids[BACKLOG - (stay - 1)..]), stay - 1);
    assert_eq!(held(&ids[..BACKLOG - (stay - 1)]), 1);
}
