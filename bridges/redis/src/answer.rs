//! What comes back when a claimer reads what is new: only what it needs of it, so that the rest is gone while the next answer is read.

use eventbroker::provider::BackendError;
use redis::Value;

use crate::entry::{bytes, list, text, unexpected};

/// What a question has found.
pub(crate) struct Answer {
    /// The last entry of the stream.
    pub(crate) last: String,
    /// Something may have been given back.
    pub(crate) is_rung: bool,
    pub(crate) entries: Vec<Entry>,
    /// What is known of the subscription.
    pub(crate) info: Vec<u8>,
}

pub(crate) struct Entry {
    /// It is one that was made again.
    pub(crate) is_again: bool,
    pub(crate) name: String,
    pub(crate) event_type: Vec<u8>,
    pub(crate) event: Vec<u8>,
}

impl Answer {
    pub(crate) fn of(answer: Vec<Value>, stream: &str) -> Result<Self, BackendError> {
        let [_, last, rung, found, info]: [Value; 5] = answer.try_into().map_err(|it| unexpected(&Value::Array(it)))?;
        let last = list(last)?.into_iter().next().map(list).transpose()?.and_then(|it| it.into_iter().next());
        let mut entries = Vec::new();
        for one in list(found)? {
            let [key, found] = <[Value; 2]>::try_from(list(one)?).map_err(|it| unexpected(&Value::Array(it)))?;
            let is_again = text(key)? != stream;
            for entry in list(found)? {
                let [name, fields] =
                    <[Value; 2]>::try_from(list(entry)?).map_err(|it| unexpected(&Value::Array(it)))?;
                let mut entry = Entry { is_again, name: text(name)?, event_type: Vec::new(), event: Vec::new() };
                let mut fields = list(fields)?.into_iter();
                while let (Some(Value::BulkString(field)), Some(value)) = (fields.next(), fields.next()) {
                    match &*field {
                        b"type" => entry.event_type = bytes(value)?,
                        b"event" => entry.event = bytes(value)?,
                        _ => {}
                    }
                }
                entries.push(entry);
            }
        }
        let last = last.map_or(Ok("0-0".to_owned()), text)?;
        let info = if info == Value::Nil { Vec::new() } else { bytes(info)? };
        Ok(Self { last, is_rung: rung != Value::Nil, entries, info })
    }
}
