//! The decoder never panics, and a decoded event survives encoding and decoding unchanged.

#![no_main]

use eventbroker::Event;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(event) = Event::from_json(bytes) {
        let json = event.to_json();
        let again = Event::from_json(&json).expect("the event's own JSON is valid");
        assert_eq!(again, event);
        assert_eq!(again.to_json(), json);
    }
});
