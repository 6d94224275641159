//! The consumer groups of a stream.

use eventbroker::provider::BackendError;
use redis::streams::{StreamInfoGroup, StreamInfoGroupsReply, StreamPendingCountReply};

use super::client::Client;
use super::entry::earliest;

/// The consumer groups of a stream; none if there is no stream.
fn groups(client: &mut Client, stream: &str) -> Result<Vec<StreamInfoGroup>, BackendError> {
    match client.query::<StreamInfoGroupsReply>(redis::cmd("XINFO").arg("GROUPS").arg(stream)) {
        Err(error) if error.to_string().contains("no such key") => Ok(Vec::new()),
        reply => Ok(reply?.groups),
    }
}

/// The last entry that a consumer group has read, if the group is there.
pub(crate) fn last_delivered(client: &mut Client, stream: &str, xgroup: &str) -> Result<Option<String>, BackendError> {
    Ok(groups(client, stream)?.into_iter().find(|group| group.name == xgroup).map(|group| group.last_delivered_id))
}

/// An entry before which every consumer group has acknowledged everything; nothing if there is no group.
pub(crate) fn first_open(client: &mut Client, stream: &str) -> Result<Option<String>, BackendError> {
    let mut first: Option<String> = None;
    for group in groups(client, stream)? {
        let mut open = group.last_delivered_id;
        if group.pending > 0 {
            let range = ("-", "+", 1);
            let oldest = client.query(redis::cmd("XPENDING").arg(stream).arg(group.name).arg(range))?;
            let StreamPendingCountReply { ids } = oldest;
            open = ids.into_iter().next().map_or(open, |oldest| oldest.id);
        }
        first = Some(first.map_or(open.clone(), |first| earliest(first, open)));
    }
    Ok(first)
}
