//! The smallest program: start a broker, subscribe, publish, stop.

use std::time::Duration;

use eventbroker::{Broker, Event, Source};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::builder().start()?;
    broker.subscribe("shop.orders.*", |delivery| {
        println!("{} with payload {}", delivery.event().event_type(), delivery.event().payload().as_str());
    })?;
    for (number, operation) in ["create", "update", "delete"].iter().enumerate() {
        let event = Event::builder(Source::Database, format!("shop.orders.{operation}")).payload(&number).build()?;
        broker.publish(event)?;
    }
    let report = broker.stop(Duration::from_secs(5));
    println!("stopped: {} events handled, {} abandoned", report.drained, report.abandoned.len());
    Ok(())
}
