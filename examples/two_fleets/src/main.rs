//! Two fleets, one on Redis and one on NATS, that share their events. This process forwards events in both directions
//! until its standard input closes. Several such processes share the work.
//!
//! - No loops: a forwarded event has metadata with the fleet of its origin, and such an event is not forwarded again.
//! - No repeats: an event keeps its id. An event forwarded again after a crash is a duplicate on the other side if it
//!   arrives within the `dedupe_window` there.
//! - No losses: an event is acknowledged when the other side has accepted it. While the other side is away, the event
//!   waits, and so do later events of its key.
//!
//! `cargo run -p eventbroker-example-two-fleets -- redis://localhost nats://localhost`

use std::error::Error;
use std::time::Duration;
use std::{env, io};

use eventbroker::error::{BuildError, PublishError};
use eventbroker::{Broker, Event, HandlerError, RetryPolicy, SubscribeOptions};
use eventbroker_nats::Nats;
use eventbroker_redis::Redis;

/// The events to forward. Not all: notices of dead letters stay in their fleet.
const PATTERN: &str = "shop.**";
/// The metadata entry with the fleet of origin.
const MARK: &str = "fleet";
/// The time after which another process takes over events of a dead one. Much shorter than either `dedupe_window`.
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
    println!("{}", if clean { "everything was forwarded" } else { "the rest waits for the next process" });
    Ok(())
}

/// Forwards the events of one fleet to the other.
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
            // The other side rejects the event itself, so a retry cannot succeed.
            Err(error @ (PublishError::IdConflict { .. } | PublishError::Invalid { .. })) => {
                Err(HandlerError::permanent(error.to_string()))
            }
            Err(error) => Err(HandlerError::retry(error.to_string())),
        }
    })?;
    Ok(())
}

/// A copy of the event with the metadata of its origin.
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
