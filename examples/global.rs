//! One broker for the whole process, for programs that do not want to hand a handle through.

use std::time::Duration;

use eventbroker::error::PublishError;
use eventbroker::{Broker, Event, Source, global};

/// Somewhere deep in the program, without a handle.
fn place_order(number: u32) -> Result<(), Box<dyn std::error::Error>> {
    let event = Event::builder(Source::Database, "shop.orders.create").payload(&number).build()?;
    match global::publish(event) {
        Ok(_) => Ok(()),
        // This program works without events too.
        Err(PublishError::Disabled { event }) => {
            println!("order {}: nobody is told", event.payload().as_str());
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Switched off: each event comes back with an error that says so.
    global::disable()?;
    place_order(1)?;
    global::shutdown(Duration::ZERO);

    global::init(Broker::builder().worker_count(2))?;
    global::subscribe("shop.orders.*", |delivery| {
        println!("order {}: handled", delivery.event().payload().as_str());
    })?;
    // There is one already, and it stays.
    if let Err(refused) = global::init(Broker::builder()) {
        println!("a second one: {refused}");
    }
    place_order(2)?;
    global::publish_sync(Event::builder(Source::System, "shop.orders.update").payload(&2).build()?)?;

    // From here on the place is free for another broker.
    let report = global::shutdown(Duration::from_secs(5)).ok_or("there was a broker")?;
    println!("stopped, clean: {}", report.is_clean());
    Ok(())
}
