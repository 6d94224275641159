//! Backpressure: the overflow policy of a subscription decides what happens when its queue is full.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventbroker::{Broker, Event, Overflow, PublishError, Source, SubscribeOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for overflow in
        [Overflow::Reject, Overflow::Block(Duration::from_millis(20)), Overflow::DropOldest, Overflow::DropNewest]
    {
        // The handler blocks, so that the queue of 4 fills up.
        let (go_on, wait): (Sender<()>, Receiver<()>) = channel();
        let wait = Arc::new(Mutex::new(wait));
        let broker = Broker::builder().start()?;
        let options = SubscribeOptions::new("logs").concurrency(1).queue_capacity(4).overflow(overflow);
        broker.subscribe_with(options, move |_| {
            // Returns when `go_on` is dropped.
            let _ = wait.lock().expect("no handler panicked").recv();
        })?;
        let (mut accepted, mut refused) = (0, 0);
        for number in 0..10 {
            match broker.publish(Event::builder(Source::System, "logs").payload(&number).build()?) {
                Ok(_) => accepted += 1,
                // The error returns the event: keep it, or publish it again later.
                Err(PublishError::Full { event, .. }) => {
                    assert_eq!(event.payload_as::<i32>()?, number);
                    refused += 1;
                }
                Err(other) => return Err(other.into()),
            }
        }
        drop(go_on);
        broker.stop(Duration::from_secs(5));
        let dropped = broker.stats().deliveries.dropped;
        println!("{overflow:?}: {accepted} accepted, {refused} refused, {dropped} dropped");
        assert_eq!(accepted + refused, 10);
        assert_eq!(broker.stats().deliveries.done + dropped, accepted);
    }
    Ok(())
}
