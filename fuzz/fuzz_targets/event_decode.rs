//! No bytes make the decoder panic, and an event that was read is written and read again as the same event.

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
