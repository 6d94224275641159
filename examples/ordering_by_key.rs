//! Events of one key are handled in publish order, one at a time. Different keys are handled concurrently.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventbroker::{Broker, Event, Source, SubscribeOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::builder().start()?;
    let seen: Arc<Mutex<HashMap<String, Vec<u32>>>> = Arc::default();
    let handler_seen = Arc::clone(&seen);
    broker.subscribe_with(SubscribeOptions::new("bank.accounts.*").concurrency(4), move |delivery| {
        let event = delivery.event();
        let step: u32 = event.payload_as().expect("a number");
        let account = event.key().unwrap_or_default().to_owned();
        handler_seen.lock().expect("no handler panicked").entry(account).or_default().push(step);
    })?;
    for step in 0..100 {
        for account in ["ada", "grace", "mary"] {
            let event = Event::builder(Source::Database, "bank.accounts.update").key(account).payload(&step);
            broker.publish(event.build()?)?;
        }
    }
    broker.stop(Duration::from_secs(5));
    for (account, steps) in &*seen.lock().expect("no handler panicked") {
        assert!(steps.iter().copied().eq(0..100), "{account}: {steps:?}");
        println!("{account}: {} steps, in order", steps.len());
    }
    Ok(())
}
