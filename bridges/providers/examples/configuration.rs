//! A broker as a file and the environment want it, at one place for the whole process.

use eventbroker::{Event, Source, global};
use eventbroker_providers::Loader;

const FILE: &str = "
event_broker:
  enabled: true
  worker_count: ${WORKERS:-4}
  retry_policy:
    max_retries: 5
";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // `Loader::new().file(path)` reads a file.
    let loaded = Loader::new().yaml("shop.yaml", FILE).load()?;
    eventbroker_providers::init(&loaded.config)?;

    // Anywhere in the program, without a handle.
    global::subscribe("shop.orders.*", |delivery| println!("{}", delivery.event().event_type()))?;
    global::publish(Event::builder(Source::System, "shop.orders.create").build()?)?;

    // Drains for at most `shutdown_timeout`.
    let report = eventbroker_providers::shutdown(&loaded.config);
    assert!(report.is_some_and(|report| report.is_clean()));
    Ok(())
}
