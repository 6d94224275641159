//! Payloads of your own types, serialized and deserialized with serde.

use std::time::Duration;

use eventbroker::{Broker, Event, HandlerError, Source, Verdict, event_type};
use serde::{Deserialize, Serialize};

#[derive(Debug, Serialize, Deserialize)]
struct Order {
    id: u64,
    total: f64,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::builder().start()?;
    let created = event_type("shop", "orders", "create");
    broker.subscribe(&created, |delivery| {
        // A decoding error is permanent, because a retry would fail alike.
        let order: Order = delivery.event().payload_as()?;
        println!("order {} over {}", order.id, order.total);
        Ok::<(), HandlerError>(())
    })?;
    let order = Order { id: 7, total: 12.5 };
    let report =
        broker.publish_sync(Event::builder(Source::Database, &*created).payload(&order).user_id(42).build()?)?;
    assert_eq!(report.settled[0].verdict, Verdict::Done);

    let report = broker.publish_sync(Event::builder(Source::Database, &*created).payload("no order").build()?)?;
    println!(
        "something else: {:?}, {}",
        report.settled[0].verdict,
        report.settled[0].error.as_deref().unwrap_or_default()
    );
    assert_eq!(report.settled[0].verdict, Verdict::Dead);
    broker.stop(Duration::from_secs(5));
    Ok(())
}
