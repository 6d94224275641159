//! Two processes share events: this one publishes, and starts itself as a second one. One of them handles each event.
//!
//! `cargo run -p eventbroker-redis --example redis -- redis://localhost`

use std::process::Command;
use std::time::Duration;
use std::{env, process, thread};

use eventbroker::{Broker, Event, Source, SubscribeOptions};
use eventbroker_redis::Redis;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = env::args().nth(1).ok_or("usage: redis URL")?;
    let is_second = env::args().nth(2).is_some();
    let broker = Broker::builder().provider(Redis::new(&url).stream_name("example").open()?).start()?;
    let me = process::id();
    broker.subscribe_with(
        // A small queue leaves events for the other process.
        SubscribeOptions::new("shop.orders.*").name("mailer").concurrency(1).queue_capacity(4),
        move |delivery| {
            println!("process {me}: order {}", delivery.event().payload().as_str());
            thread::sleep(Duration::from_millis(20));
        },
    )?;
    if is_second {
        thread::sleep(Duration::from_secs(2));
        broker.stop(Duration::from_secs(5));
        return Ok(());
    }
    let mut second = Command::new(env::current_exe()?).args([&url, "second"]).spawn()?;
    thread::sleep(Duration::from_millis(500));
    for order in 1..=40_u32 {
        broker.publish(Event::builder(Source::System, "shop.orders.create").payload(&order).build()?)?;
    }
    second.wait()?;
    let report = broker.stop(Duration::from_secs(5));
    println!("process {me}: {} went back to the stream", report.released);
    Ok(())
}
