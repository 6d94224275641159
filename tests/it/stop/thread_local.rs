//! A broker may live in a thread-local variable: it stops when its thread ends, whatever the thread did before.

use std::cell::RefCell;
use std::thread;

use eventbroker::{Broker, Status};

use crate::support::event;

thread_local! {
    static BROKER: RefCell<Option<Broker>> = const { RefCell::new(None) };
}

#[test]
fn a_broker_in_a_thread_local_stops_with_its_thread() {
    let thread = thread::spawn(|| {
        let broker = Broker::builder().start().expect("valid settings");
        broker.subscribe("some", |_| {}).expect("a valid pattern");
        BROKER.set(Some(broker.clone()));
        // Runs the handler on this thread, so the broker has variables of its own here, which end first.
        let report = broker.publish_sync(event("some")).expect("room");
        assert!(report.open.is_empty());
        let found = broker.get(&report.id).expect("no back end");
        assert_eq!(found.map(|event| event.status()), Some(Status::Completed));
    });
    assert!(thread.join().is_ok());
}
