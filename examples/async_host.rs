//! Inside an async program: publishing never blocks its threads, and handlers hand over to its tasks.

use std::time::Duration;

use eventbroker::{Broker, Event, PublishError, Source};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::builder().start()?;
    // Handlers run on the broker's own threads, where blocking is fine: a full channel holds up that subscription only.
    let (sender, mut received) = mpsc::channel(16);
    broker.subscribe("shop.orders.*", move |delivery| {
        // Fails when the receiver is gone: then nobody wants the event any more.
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
        // Never waits: without room the event comes back, and the task waits in the way of its runtime.
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
    // What blocks goes to a thread for that.
    let report = spawn_blocking(move || broker.stop(Duration::from_secs(5))).await?;
    assert!(report.is_clean());
    Ok(())
}
