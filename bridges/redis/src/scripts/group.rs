//! The consumer groups of a stream, as `XINFO GROUPS` shows them.

use eventbroker::provider::BackendError;
use redis::Value;

use super::client::Client;
use super::entry::earliest;
use super::value::{fixed, list, number, text};

struct Group {
    name: String,
    last_delivered: String,
    pending: i64,
}

/// The consumer groups of a stream; none if there is no stream.
fn groups(client: &mut Client, stream: &str) -> Result<Vec<Group>, BackendError> {
    let reply: Value = match client.query(redis::cmd("XINFO").arg("GROUPS").arg(stream)) {
        Err(error) if error.to_string().contains("no such key") => return Ok(Vec::new()),
        reply => reply?,
    };
    let group = |value: Value| {
        let mut group = Group { name: String::new(), last_delivered: String::new(), pending: 0 };
        let mut fields = list(value)?.into_iter();
        while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
            match text(field)?.as_str() {
                "name" => group.name = text(value)?,
                "last-delivered-id" => group.last_delivered = text(value)?,
                "pending" => group.pending = number(value)?,
                _ => {}
            }
        }
        Ok(group)
    };
    list(reply)?.into_iter().map(group).collect()
}

/// The last entry that a consumer group has read, if the group is there.
pub(crate) fn last_delivered(client: &mut Client, stream: &str, xgroup: &str) -> Result<Option<String>, BackendError> {
    Ok(groups(client, stream)?.into_iter().find(|group| group.name == xgroup).map(|group| group.last_delivered))
}

/// An entry before which every consumer group has acknowledged everything; nothing if there is no group.
pub(crate) fn first_open(client: &mut Client, stream: &str) -> Result<Option<String>, BackendError> {
    let mut first: Option<String> = None;
    for Group { name, mut last_delivered, pending } in groups(client, stream)? {
        if pending > 0 {
            let mut oldest = redis::cmd("XPENDING");
            oldest.arg(stream).arg(&name).arg("-").arg("+").arg(1);
            let oldest: Value = client.query(&oldest)?;
            if let Some(oldest) = list(oldest)?.into_iter().next() {
                let [entry, _, _, _] = fixed(oldest)?;
                last_delivered = text(entry)?;
            }
        }
        first = Some(first.map_or(last_delivered.clone(), |first| earliest(first, last_delivered)));
    }
    Ok(first)
}
