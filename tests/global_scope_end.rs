//! The end of a scope of the global broker runs user code without a lock. It stands alone: where it fails, the place stays locked.

#[path = "it/support.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::sync::mpsc::{Sender, channel};

use eventbroker::Broker;
use eventbroker::global::{self, InitError};
use support::{PATIENCE, in_time, receive};

/// Asks for the place when it is dropped, and says what it was told.
struct AsksWhenDropped(Sender<Result<(), InitError>>);

impl Drop for AsksWhenDropped {
    fn drop(&mut self) {
        // The test may have given up.
        let _ = self.0.send(global::init(Broker::builder()));
    }
}

#[test]
fn what_a_scope_replaces_may_use_the_place_when_it_ends() {
    global::disable().expect("the place is empty");
    let (sender, receiver) = channel();
    in_time("the scope's end", move || {
        let scope = global::scope(Broker::builder().start().expect("it starts"));
        global::shutdown(PATIENCE);
        global::init(Broker::builder()).expect("the place is empty");
        let captured = AsksWhenDropped(sender);
        global::subscribe("a", move |_| {
            let _ = &captured;
        })
        .expect("subscribed");
        drop(scope);
    });
    assert_eq!(receive(&receiver, "the handler's end"), Err(InitError::AlreadyInitialised));
    assert!(global::get().is_none(), "it is disabled as before");
}
