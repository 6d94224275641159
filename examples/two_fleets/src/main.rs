//! Two fleets, one on Redis and one on NATS, that share their events: this process carries them both ways, until its standard input ends. Any
//! number of it may run; they share the work.
//!
//! - No loops: what was carried is marked with the fleet that it comes from, and what is marked is not carried.
//! - No repeats: an event keeps its id. What is carried again, because this process died after it had published and before that was acknowledged, is a
//!   duplicate on the other side, and changes nothing, as long as it comes again within the other side's `dedupe_window`.
//! - Nothing lost: an event is acknowledged on its side when the other one has accepted it. While that is away, it waits, and so do
//!   those of its key behind it.
//!
//! `cargo run -p eventbroker-example-two-fleets -- redis://localhost nats://localhost`

use std::error::Error;
use std::time::Duration;
use std::{env, io};

use eventbroker::error::{BuildError, PublishError};
use eventbroker::{Broker, Event, HandlerError, RetryPolicy, SubscribeOptions};
use eventbroker_nats::Nats;
use eventbroker_redis::Redis;

/// What is carried. (Not everything: each fleet has dead letters of its own.)
const PATTERN: &str = "shop.**";
/// The metadata that says which fleet an event comes from.
const MARK: &str = "fleet";
/// After so long others carry what a process that died had begun: well within the time for which either side knows an id.
const LEASE: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let [redis, nats] = [1, 2].map(|at| env::args().nth(at).ok_or("usage: two-fleets REDIS_URL NATS_URL"));
    let redis = Broker::builder().provider(Redis::new(redis?).lease_time(LEASE).open()?).start()?;
    let nats = Broker::builder().provider(Nats::new(nats?).lease_time(LEASE).open()?).start()?;
    carry(&redis, "redis", &nats)?;
    carry(&nats, "nats", &redis)?;
    println!("carrying");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    let clean = [redis, nats].iter().all(|broker| broker.stop(Duration::from_secs(5)).is_clean());
    println!("{}", if clean { "everything was carried" } else { "the rest waits for the next one" });
    Ok(())
}

/// Has the events that come from one fleet published in the other one.
fn carry(from: &Broker, fleet: &'static str, to: &Broker) -> Result<(), Box<dyn Error>> {
    let to = to.clone();
    let patient = RetryPolicy::fixed(u32::MAX, Duration::from_secs(1));
    from.subscribe_with(SubscribeOptions::new(PATTERN).name("to-the-other-fleet").retry(patient), move |delivery| {
        let event = delivery.event();
        if event.metadata().contains_key(MARK) {
            return Ok(());
        }
        let copy = marked(event, fleet).map_err(|error| HandlerError::permanent(error.to_string()))?;
        match to.publish(copy) {
            Ok(_) => Ok(()),
            // The other side knows this id as something else: to try again would not help.
            Err(error @ (PublishError::IdConflict { .. } | PublishError::Invalid { .. })) => {
                Err(HandlerError::permanent(error.to_string()))
            }
            Err(error) => Err(HandlerError::retry(error.to_string())),
        }
    })?;
    Ok(())
}

/// The same event, with the fleet that it comes from.
fn marked(event: &Event, fleet: &str) -> Result<Event, BuildError> {
    let mut copy = Event::builder(event.source(), event.event_type().as_str())
        .id(event.id().clone())
        .payload_raw(event.payload().clone())
        .created_at(event.created_at());
    for (name, value) in event.metadata() {
        copy = copy.metadata(name, value.clone());
    }
    if let Some(key) = event.key() {
        copy = copy.key(key);
    }
    if let Some(user) = event.user_id() {
        copy = copy.user_id(user);
    }
    if let Some(session) = event.session_id() {
        copy = copy.session_id(session);
    }
    if let Some(instance) = event.instance_id() {
        copy = copy.instance_id(instance);
    }
    copy.metadata(MARK, fleet).build()
}
