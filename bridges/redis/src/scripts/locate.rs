//! Finding the entry of an event by its id.

use eventbroker::EventId;
use eventbroker::provider::BackendError;
use eventbroker_bridge_kit::id_time::id_time;

use super::client::Client;
use super::entry::from_json;
use super::id_time::TOLERANCE;
use super::merge_scan::Located;
use super::value::millis;

/// The entry of an event, and the event without its status. An entry that is no event is not found.
pub(crate) fn locate(client: &mut Client, id: &EventId) -> Result<Option<Located>, BackendError> {
    let id = id.to_string();
    let mut arguments = vec![id.clone()];
    if let Some(time) = id_time(&id) {
        arguments.extend([time.at.as_millis().to_string(), millis(TOLERANCE)]);
    }
    let found: Option<(usize, String, Vec<u8>)> = client.run(&super::FIND_ENTRY, &arguments)?;
    Ok(found.and_then(|(number, entry, event)| Some((number, entry, from_json(&event).ok()?))))
}
