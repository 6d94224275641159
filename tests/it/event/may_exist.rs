//! An event knows whether a back end may hold it already; only what makes another copy of it changes that.

use eventbroker::{Event, EventBuilder, Source};

fn builder() -> EventBuilder {
    Event::builder(Source::System, "shop.orders.create")
}

#[test]
fn a_new_event_cannot_exist_and_reading_it_changes_nothing() {
    let event = builder().payload(&1).build().expect("a valid event");
    assert!(!event.may_exist());
    let id = event.id().clone();
    assert_eq!((event.id(), event.payload().as_str(), event.key()), (&id, "1", None));
    assert!(!format!("{} {event:?}", event.id()).is_empty());
    assert!(!event.may_exist());
}

#[test]
fn an_event_with_a_given_id_may_exist() {
    assert!(builder().id("order-7").build().expect("a valid event").may_exist());
}

#[test]
fn of_two_copies_each_may_exist() {
    let event = builder().build().expect("a valid event");
    let copy = event.clone();
    assert!(event.may_exist() && copy.may_exist());
}

#[test]
fn an_event_that_was_written_as_json_may_exist_and_one_that_was_read() {
    for write in [|event: &Event| event.to_json(), |event: &Event| serde_json::to_vec(event).expect("JSON")] {
        let event = builder().build().expect("a valid event");
        let read = Event::from_json(&write(&event)).expect("an event");
        assert!(event.may_exist() && read.may_exist());
    }
}
