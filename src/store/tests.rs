//! What the public interface shows only after billions of events.

use std::sync::mpsc::channel;
use std::time::Duration;

use super::{By, Store};
use crate::event::{Event, Source};

/// A publisher that follows such an entry waits for an event that nobody has published.
#[test]
fn an_entry_of_the_index_that_is_billions_of_events_old_leads_nowhere() {
    let store = Store::new(10, 10);
    // As after so many events whose ids leave no trace in the index: those of other origin.
    store.ring.skip(3 << 30);
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let event = Event::builder(Source::System, "any").build().expect("a valid event");
        let id = event.id().clone();
        let is_new = store.put(event, 1, By::Ingest, || 0).is_ok();
        let _ = sender.send(is_new && store.find(&id).is_some());
    });
    assert_eq!(receiver.recv_timeout(Duration::from_secs(10)), Ok(true));
}
