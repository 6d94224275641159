//! Storing events that may exist: a script checks each id before it stores the event.

use std::sync::Arc;

use eventbroker::Event;
use eventbroker::provider::{BackendError, SendOutcome};
use eventbroker_bridge_kit::id_time::id_time;

use super::BacklogLimit;
use crate::scripts::{Client, STORE_EVENTS, TOLERANCE, content_hash, flag, id_bucket, millis};
use crate::settings::Redis;

/// The parts of a provider that publishing uses.
#[derive(Clone)]
pub(crate) struct Publishing {
    pub(crate) settings: Arc<Redis>,
    pub(crate) backlog: Arc<BacklogLimit>,
}

/// Stores those of the events whose ids are not known. If the backlog has reached its limit, only duplicates are recognized.
pub(crate) fn store(it: &Publishing, client: &mut Client, batch: &[Event]) -> Result<Vec<SendOutcome>, BackendError> {
    let head = [
        millis(it.settings.dedupe_window),
        millis(it.settings.retention),
        millis(TOLERANCE),
        flag(it.backlog.is_reached()).to_owned(),
    ];
    let mut arguments: Vec<Vec<u8>> = head.map(String::into_bytes).to_vec();
    let hashes: Vec<[u8; 8]> = batch.iter().map(content_hash).collect();
    for (event, hash) in batch.iter().zip(&hashes) {
        let id = event.id().to_string();
        let [at, id_bytes, bucket] = id_time(&id).map_or_else(Default::default, |time| {
            [time.at.as_millis().to_string().into(), time.bytes.to_vec(), id_bucket(&time).to_string().into()]
        });
        let (event_type, instance) = (event.event_type().as_str(), event.instance_id().unwrap_or_default());
        let number = (client.layout.index_for(event) + 1).to_string();
        arguments.extend([
            id.into(),
            event_type.into(),
            event.source().as_str().into(),
            instance.into(),
            event.to_json(),
            hash.to_vec(),
            number.into(),
            at,
            id_bytes,
            bucket,
        ]);
    }
    let mut outcomes = Vec::with_capacity(batch.len());
    let answers: Vec<Vec<u8>> = client.run(&STORE_EVENTS, &arguments)?;
    for (answer, hash) in answers.into_iter().zip(&hashes) {
        outcomes.push(match answer.strip_prefix(b"=") {
            None if answer == b"!" => SendOutcome::Full { max_backlog: it.backlog.max },
            Some(known) if known == hash => SendOutcome::Known,
            Some(_) => SendOutcome::Conflict,
            None => SendOutcome::Held,
        });
    }
    wait_for_replicas(&it.settings, client)?;
    Ok(outcomes)
}

/// Waits until `min_replicas` have everything that this connection has written or read: an event that was known counts as well.
pub(super) fn wait_for_replicas(settings: &Redis, client: &mut Client) -> Result<(), BackendError> {
    let (wanted, limit) = (settings.min_replicas, settings.replica_timeout);
    if wanted == 0 {
        return Ok(());
    }
    let have: u32 = client.query(redis::cmd("WAIT").arg(wanted).arg(limit.as_millis().max(1) as u64))?;
    if have >= wanted {
        return Ok(());
    }
    Err(client.unavailable(format_args!("{have} replicas of {wanted} have it after {limit:?}")))
}
