//! A clean shutdown on Ctrl-C or SIGTERM: the broker drains accepted events and reports the ones it abandoned.
//!
//! The program sends the signal to itself. Needs the feature `signals`.

use std::sync::Once;
use std::time::Duration;

use eventbroker::{Broker, Event, Source, run_until_signal};
use signal_hook::consts::SIGTERM;
use signal_hook::low_level::raise;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::builder().start()?;
    // An orchestrator would send SIGTERM; here the first call of the handler does, while events are queued.
    let asked = Once::new();
    broker.subscribe("work", move |_| {
        asked.call_once(|| raise(SIGTERM).expect("a signal can be sent"));
        std::thread::sleep(Duration::from_millis(5));
    })?;
    let publisher = broker.clone();
    std::thread::spawn(move || {
        // Gives the main thread time to install its handlers. An earlier signal would kill the process.
        std::thread::sleep(Duration::from_secs(1));
        for number in 0..1_000 {
            let event = Event::builder(Source::System, "work").payload(&number).build().expect("a valid event");
            if let Err(refused) = publisher.publish(event) {
                println!("not accepted any more: {refused}");
                break;
            }
        }
    });
    let report = run_until_signal(&broker, Duration::from_secs(5))?;
    println!(
        "{} handled while stopping, {} abandoned, clean: {}",
        report.drained,
        report.abandoned.len(),
        report.is_clean()
    );
    std::process::exit(if report.is_clean() { 0 } else { 1 });
}
