//! The end of a scope of the global broker runs user code without holding a lock. A process of its own: if the test
//! fails, the global broker stays locked.

#[path = "it/support.rs"]
#[allow(dead_code, reason = "shared with the other tests")]
mod support;

use std::sync::mpsc::{Sender, channel};

use eventbroker::Broker;
use eventbroker::global::{self, InitError};
use support::{PATIENCE, in_time, receive};

/// Initialises the global broker when it is dropped, and sends the result.
struct InitialisesWhenDropped(Sender<Result<(), InitError>>);

impl Drop for InitialisesWhenDropped {
    fn drop(&mut self) {
        // The receiver is gone when the test has failed.
        let _ = self.0.send(global::init(Broker::builder()));
    }
}

#[test]
fn a_handler_dropped_by_the_end_of_a_scope_may_call_the_global_broker() {
    global::disable().expect("no global broker yet");
    let (sender, receiver) = channel();
    in_time("the scope's end", move || {
        let scope = global::scope(Broker::builder().start().expect("a running broker"));
        global::shutdown(PATIENCE);
        global::init(Broker::builder()).expect("no global broker yet");
        let captured = InitialisesWhenDropped(sender);
        global::subscribe("a", move |_| {
            let _ = &captured;
        })
        .expect("subscribed");
        drop(scope);
    });
    assert_eq!(receive(&receiver, "the handler's end"), Err(InitError::AlreadyInitialised));
    assert!(global::get().is_none(), "the end of the scope restores the disabled state");
}
