//! The event types that each kind of pattern matches.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventbroker::{Broker, Event, Source};

const PATTERNS: [&str; 5] = ["shop.orders.create", "shop.orders.*", "*.*.delete", "shop.**", "*"];
const TYPES: [&str; 4] = ["shop.orders.create", "shop.orders.delete", "crm.contacts.delete", "shop.stock.level.low"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::builder().start()?;
    let received: Arc<Mutex<BTreeMap<&str, Vec<String>>>> = Arc::default();
    for pattern in PATTERNS {
        let received = Arc::clone(&received);
        broker.subscribe(pattern, move |delivery| {
            let mut received = received.lock().expect("no handler panicked");
            received.entry(pattern).or_default().push(delivery.event().event_type().to_string());
        })?;
    }
    for event_type in TYPES {
        broker.publish(Event::builder(Source::System, event_type).build()?)?;
    }
    broker.stop(Duration::from_secs(5));
    let received = received.lock().expect("no handler panicked");
    for (pattern, types) in &*received {
        println!("{pattern:20} received {}", types.join(", "));
    }
    // `*` matches one segment, a final `**` one or more, and `*` alone every type.
    let counts: Vec<usize> = PATTERNS.iter().map(|pattern| received[pattern].len()).collect();
    assert_eq!(counts, [1, 2, 2, 3, 4]);
    Ok(())
}
