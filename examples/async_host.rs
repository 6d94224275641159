//! A broker in an async program: publishing never blocks a runtime thread, and handlers send events to async tasks.

use std::time::Duration;

use eventbroker::{Broker, Event, PublishError, Source};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::builder().start()?;
    // Handlers run on the broker's worker threads, where blocking is fine: a full channel blocks this subscription
    // only.
    let (sender, mut received) = mpsc::channel(16);
    broker.subscribe("shop.orders.*", move |delivery| {
        // An error means that the receiver was dropped: the event is no longer needed.
        let _ = sender.blocking_send(delivery.event().clone());
    })?;
    let consumer = tokio::spawn(async move {
        let mut count = 0;
        while count < 1_000 {
            let Some(event) = received.recv().await else { break };
            assert_eq!(event.operation(), Some("create"));
            count += 1;
        }
        count
    });

    for number in 0..1_000 {
        let mut event = Event::builder(Source::Websocket, "shop.orders.create").payload(&number).build()?;
        // `publish_async` never blocks: when the queue is full it returns the event, and the task sleeps
        // asynchronously.
        loop {
            match broker.publish_async(event) {
                Ok(_receipt) => break,
                Err(PublishError::Full { event: back, .. }) => event = *back,
                Err(other) => return Err(other.into()),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    println!("{} events received", consumer.await?);
    // `stop` blocks until the drain has ended, so it runs on a blocking thread.
    let report = spawn_blocking(move || broker.stop(Duration::from_secs(5))).await?;
    assert!(report.is_clean());
    Ok(())
}
