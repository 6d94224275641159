//! One global broker for the whole process, for programs that do not pass a handle around.

use std::time::Duration;

use eventbroker::error::PublishError;
use eventbroker::{Broker, Event, Source, global};

/// Publishes without a handle to the broker.
fn place_order(number: u32) -> Result<(), Box<dyn std::error::Error>> {
    let event = Event::builder(Source::Database, "shop.orders.create").payload(&number).build()?;
    match global::publish(event) {
        Ok(_) => Ok(()),
        // The program continues without events.
        Err(PublishError::Disabled { event }) => {
            println!("order {}: not published, the broker is disabled", event.payload().as_str());
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Disabled: each publish returns its event in `PublishError::Disabled`.
    global::disable()?;
    place_order(1)?;
    global::shutdown(Duration::ZERO);

    global::init(Broker::builder().worker_count(2))?;
    global::subscribe("shop.orders.*", |delivery| {
        println!("order {}: handled", delivery.event().payload().as_str());
    })?;
    // A second `init` is refused, and the first broker stays.
    if let Err(refused) = global::init(Broker::builder()) {
        println!("second init: {refused}");
    }
    place_order(2)?;
    global::publish_sync(Event::builder(Source::System, "shop.orders.update").payload(&2).build()?)?;

    // After a shutdown another broker can be initialized.
    let report = global::shutdown(Duration::from_secs(5)).ok_or("there was a broker")?;
    println!("stopped, clean: {}", report.is_clean());
    Ok(())
}
