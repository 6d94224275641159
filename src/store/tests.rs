//! What the public interface shows only after billions of events, or once in a hundred thousand races.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::{Record, SharedRecord, StatusSource, Store};
use crate::event::{Event, Source};

fn event() -> Event {
    Event::builder(Source::System, "any").build().expect("a valid event")
}

/// A publisher that follows such an entry waits for an event that nobody has published.
#[test]
fn an_entry_of_the_index_that_is_billions_of_events_old_leads_nowhere() {
    let store = Store::new(10, 10);
    // As after so many events whose ids leave no trace in the index: those of other origin.
    store.ring.skip(3 << 30);
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let event = event();
        let id = event.id().clone();
        let is_new = store.put(event, 1, StatusSource::Ingest, || 0).is_ok();
        let _ = sender.send(is_new && store.find(&id).is_some());
    });
    assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(true));
}

/// Two publishers of an id look for it at different places, if the event whose number shares its place leaves in between.
#[test]
fn a_second_publisher_of_an_id_waits_for_the_first_wherever_that_claimed_it() {
    let store = Arc::new(Store::new(1, 16));
    let first = event();
    let number = |event: &Event| event.id().local_sequence().expect("an id of our own") as usize;
    let same_place = |it: &Event| number(it) % store.index.len() == number(&first) % store.index.len();
    let held_up = std::iter::repeat_with(event).find(same_place).expect("one in so many");
    store.put(first, 0, StatusSource::Ingest, || 0).expect("it is new");
    // Its publisher has claimed the id among the strays, and is held up before it fills its slot.
    let position = store.ring.take(1).start;
    store.claim(held_up.id(), position).expect("it is new");
    // The first, and only that, leaves.
    for _ in 0..2 {
        store.put(event(), 1, StatusSource::Ingest, || 1).expect("it is new");
    }
    assert_eq!(store.ring.positions().start, position);

    let (sender, answers) = channel();
    let (second, same) = (Arc::clone(&store), held_up.clone());
    std::thread::spawn(move || {
        let _ = sender.send(second.put(same, 1, StatusSource::Ingest, || 10).is_ok());
    });
    assert!(answers.recv_timeout(Duration::from_millis(100)).is_err(), "it did not wait");
    let mut slot = store.ring.slot(position);
    slot.record = Some(SharedRecord::new(Record::new(held_up, 1, StatusSource::Ingest)));
    slot.filled = position + 1;
    drop(slot);
    assert_eq!(answers.recv_timeout(Duration::from_secs(10)), Ok(false));
}
