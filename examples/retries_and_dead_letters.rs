//! A handler that fails: its delivery is retried after growing delays. Dead letters can be listed and requeued.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use eventbroker::dead_letter::DeadLetterFilter;
use eventbroker::{Broker, Event, HandlerError, RetryPolicy, Source, SubscribeOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::builder().start()?;
    let server_is_up = Arc::new(AtomicBool::new(false));
    let is_up = Arc::clone(&server_is_up);
    let options = SubscribeOptions::new("shop.customers.create").name("welcome-mail").retry(RetryPolicy {
        max_retries: 2,
        initial_delay: Duration::from_millis(20),
        ..RetryPolicy::default()
    });
    broker.subscribe_with(options, move |delivery| {
        println!("attempt {} for {}", delivery.attempt(), delivery.event().payload().as_str());
        if delivery.event().payload().as_str() == r#""nobody@""# {
            return Err(HandlerError::permanent("not an address")); // a dead letter at once
        }
        if is_up.load(Ordering::SeqCst) { Ok(()) } else { Err(HandlerError::retry("the mail server is down")) }
    })?;
    for address in ["ada@example.org", "nobody@"] {
        let event = Event::builder(Source::Database, "shop.customers.create").payload(address).build()?;
        // Blocks until the delivery has ended, retries included.
        let report = broker.publish_sync(event)?;
        println!("{address}: {:?}", report.settled[0].verdict);
    }
    for letter in broker.dead_letters(&DeadLetterFilter::default())? {
        let last = letter.errors.last().map_or("", |error| error.message.as_str());
        println!("dead after {} attempts: {last}", letter.attempts);
    }

    println!("the mail server is up again");
    server_is_up.store(true, Ordering::SeqCst);
    let requeued = broker.requeue_matching(&DeadLetterFilter::default())?;
    assert_eq!(requeued, 2);
    broker.stop(Duration::from_secs(5));
    let left = broker.dead_letters(&DeadLetterFilter::default())?;
    println!("{} of {requeued} failed again", left.len());
    assert_eq!(left.len(), 1);
    Ok(())
}
