//! A broker in a thread-local variable stops when its thread ends, whatever the thread did before.

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
        // The handler runs on this thread, which creates thread-locals of the broker. They are destroyed before
        // `BROKER`.
        let report = broker.publish_sync(event("some")).expect("room");
        assert!(report.open.is_empty());
        let found = broker.get(&report.id).expect("no back end");
        assert_eq!(found.map(|event| event.status()), Some(Status::Completed));
    });
    assert!(thread.join().is_ok());
}
