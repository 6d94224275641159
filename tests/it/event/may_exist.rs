//! `may_exist`: whether a back end may hold the event already. Only a second copy of the event makes it true; reading
//! does not.

use eventbroker::{Event, EventBuilder, Source};

fn builder() -> EventBuilder {
    Event::builder(Source::System, "shop.orders.create")
}

#[test]
fn a_new_event_does_not_exist_and_reading_its_fields_changes_nothing() {
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
fn an_event_and_its_clone_may_exist() {
    let event = builder().build().expect("a valid event");
    let copy = event.clone();
    assert!(event.may_exist() && copy.may_exist());
}

#[test]
fn an_event_that_was_written_as_json_or_read_from_it_may_exist() {
    for write in [|event: &Event| event.to_json(), |event: &Event| serde_json::to_vec(event).expect("JSON")] {
        let event = builder().build().expect("a valid event");
        let read = Event::from_json(&write(&event)).expect("an event");
        assert!(event.may_exist() && read.may_exist());
    }
}
