//! Events that outlive the process: run it twice, and the second run goes on with what the first has left.
//!
//! `cargo run -p eventbroker-sql --features sqlite-bundled --example sqlite`

use std::env;
use std::time::Duration;

use eventbroker::{Broker, Event, Source, SubscribeOptions};
use eventbroker_sql::Sqlite;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let file = env::temp_dir().join("eventbroker-example.db");
    let broker = Broker::builder().provider(Sqlite::new(&file).open()?).start()?;
    let options = SubscribeOptions::new("shop.orders.*").name("mailer").ordered();
    broker.subscribe_with(options, |delivery| {
        let order: u32 = delivery.event().payload_as().unwrap_or_default();
        println!("order {order} of {}", delivery.event().id());
        // Some take too long to be done in this run.
        std::thread::sleep(Duration::from_millis(100));
    })?;
    for order in 1..=10_u32 {
        broker.publish(Event::builder(Source::System, "shop.orders.create").payload(&order).build()?)?;
    }
    let report = broker.stop(Duration::from_millis(500));
    println!("{} went back to {}, for the next run", report.released, file.display());
    Ok(())
}
