//! Finding the entry of an event by its id.

use eventbroker::EventId;
use eventbroker::provider::BackendError;

use super::client::Client;
use super::entry::from_json;
use super::id_time::{TOLERANCE, id_time};
use super::merge_scan::Located;
use super::value::{bytes, list, millis, number, text};

/// The entry of an event, and the event without its status. An entry that is no event is not found.
pub(crate) fn locate(client: &mut Client, id: &EventId) -> Result<Option<Located>, BackendError> {
    let id = id.to_string();
    let mut arguments = vec![id.clone()];
    if let Some(time) = id_time(&id) {
        arguments.extend([time.at.as_millis().to_string(), millis(TOLERANCE)]);
    }
    let found = list(client.run(&super::FIND_ENTRY, &arguments)?)?;
    let Ok([stream, entry, event]) = <[_; 3]>::try_from(found) else { return Ok(None) };
    let number = number(stream)?.try_into().unwrap_or(0);
    Ok(from_json(&bytes(event)?).ok().map(|event| (number, text(entry).unwrap_or_default(), event)))
}
