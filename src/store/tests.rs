//! Cases that the public interface shows only after billions of events, or once in a hundred thousand races.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::{Record, SharedRecord, StatusSource, Store};
use crate::event::{Event, Source};

fn event() -> Event {
    Event::builder(Source::System, "any").build().expect("a valid event")
}

/// A publisher that followed such an entry would wait for a position that no publisher fills.
#[test]
fn an_index_entry_that_is_billions_of_events_old_maps_to_no_position() {
    let store = Store::new(10, 10);
    // As after so many events whose ids are not indexed: those of other origin.
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

/// Two publishers of an id claim it in different tables if the event that shares its index entry is evicted in between.
#[test]
fn a_second_publisher_of_an_id_waits_for_the_first_that_claimed_it_outside_the_index() {
    let store = Arc::new(Store::new(1, 16));
    let first = event();
    let number = |event: &Event| event.id().local_sequence().expect("an id of our own") as usize;
    let same_entry = |it: &Event| number(it) % store.index.len() == number(&first) % store.index.len();
    let delayed = std::iter::repeat_with(event).find(same_entry).expect("one in so many");
    store.put(first, 0, StatusSource::Ingest, || 0).expect("it is new");
    // Its publisher has claimed the id in `unindexed`, and is delayed before it fills its slot.
    let position = store.ring.take(1).start;
    store.claim(delayed.id(), position).expect("it is new");
    // The first event, and no other, is evicted.
    for _ in 0..2 {
        store.put(event(), 1, StatusSource::Ingest, || 1).expect("it is new");
    }
    assert_eq!(store.ring.positions().start, position);

    let (sender, answers) = channel();
    let (second, same) = (Arc::clone(&store), delayed.clone());
    std::thread::spawn(move || {
        let _ = sender.send(second.put(same, 1, StatusSource::Ingest, || 10).is_ok());
    });
    assert!(answers.recv_timeout(Duration::from_millis(100)).is_err(), "the second publisher did not wait");
    let mut slot = store.ring.slot(position);
    slot.record = Some(SharedRecord::new(Record::new(delayed, 1, StatusSource::Ingest)));
    slot.filled = position + 1;
    drop(slot);
    assert_eq!(answers.recv_timeout(Duration::from_secs(10)), Ok(false));
}
