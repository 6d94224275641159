//! The lag of a subscription.

use std::sync::Arc;
use std::time::SystemTime;

use eventbroker::provider::BackendError;
use eventbroker::stats::SubscriptionLag;
use eventbroker::{Event, Pattern};
use redis::streams::{StreamPendingCountReply, StreamPendingId};

use crate::scripts::{Client, Entry, event_of, last_delivered};
use crate::subscriptions::SubscriptionRecord;

/// The most unread, and pending, entries that are counted. Beyond it the lag is an estimate.
const COUNTED: usize = 10_000;
/// Entries of one read.
const STEP: usize = 500;

/// The deliveries of a subscription that wait, and the age of the oldest: unread entries that match, and released ones.
pub(super) fn lag(
    client: &mut Client,
    xgroup: &str,
    record: &SubscriptionRecord,
) -> Result<SubscriptionLag, BackendError> {
    let mut lag = SubscriptionLag::default();
    (lag.group, lag.name, lag.pattern) = (record.group.clone(), record.name.clone(), record.pattern.clone());
    lag.instance = Some(record.instance.clone()).filter(|instance| !instance.is_empty());
    let Ok(pattern) = Pattern::parse(&record.pattern) else { return Ok(lag) };
    let mut oldest: Option<SystemTime> = None;
    let mut note = |event: &Event| oldest = Some(oldest.map_or(event.created_at(), |at| at.min(event.created_at())));
    let layout = Arc::clone(&client.layout);
    for number in 0..=layout.streams.len() {
        let stream = layout.delivery_stream(xgroup, number);
        let Some(last) = last_delivered(client, &stream, xgroup)? else { continue };
        let mut from = format!("({last}");
        for _ in 0..COUNTED / STEP {
            let mut range = redis::cmd("XRANGE");
            range.arg(&stream).arg(&from).arg("+").arg("COUNT").arg(STEP);
            let found: Vec<Entry> = client.query(&range)?;
            let events = found.iter().filter_map(|(_, fields)| event_of(fields).ok());
            for event in events.filter(|event| number == 0 || pattern.matches(event.event_type().as_str())) {
                lag.ready += 1;
                note(&event);
            }
            match found.last() {
                Some((entry, _)) if found.len() == STEP => from = format!("({entry}"),
                _ => break,
            }
        }
        let mut pending = redis::cmd("XPENDING");
        pending.arg(&stream).arg(xgroup).arg("-").arg("+").arg(COUNTED);
        let pending: StreamPendingCountReply = client.query(&pending)?;
        for StreamPendingId { id: entry, consumer, .. } in pending.ids {
            if consumer != "released" {
                lag.leased += 1;
                continue;
            }
            lag.ready += 1;
            let found: Vec<Entry> = client.query(redis::cmd("XRANGE").arg(&stream).arg(&entry).arg(&entry))?;
            found.iter().filter_map(|(_, fields)| event_of(fields).ok()).for_each(|event| note(&event));
        }
    }
    lag.oldest_ready = oldest;
    lag.deferred = client.query(redis::cmd("ZCARD").arg(layout.key_of("later", xgroup)))?;
    lag.dead = client.query(redis::cmd("HLEN").arg(layout.key_of("letters:at", xgroup)))?;
    Ok(lag)
}
