//! The reply to a read of new entries. Of each entry only the needed fields are copied out of the buffer.

use redis::{RedisResult, Value};

use crate::transport::{Connection, Piece, damaged, refusal};

/// The result of one read.
pub(super) struct BatchReply {
    /// The last entry of the stream.
    pub(super) last: String,
    /// Whether another member has notified since the last read: a delivery may have been released.
    pub(super) was_notified: bool,
    pub(super) entries: Vec<NewEntry>,
    /// The subscription's record; empty if there is none.
    pub(super) record: Vec<u8>,
}

#[derive(Default)]
pub(super) struct NewEntry {
    /// Whether it is of the redelivery stream.
    pub(super) is_redelivery: bool,
    pub(super) id: String,
    pub(super) event_type: Vec<u8>,
    pub(super) event: Vec<u8>,
    /// Of a deferred retry: the number of attempts, and their errors as JSON.
    pub(super) attempts: Vec<u8>,
    pub(super) errors: Vec<u8>,
}

impl BatchReply {
    /// Reads the reply to its end; returns a refusal if it has one.
    pub(super) fn read(connection: &mut Connection, stream: &str) -> RedisResult<RedisResult<Self>> {
        let last = connection.value()?.extract_error();
        let notified = connection.value()?.extract_error();
        let entries = read_entries(connection, stream)?;
        let record = connection.value()?.extract_error();
        let all = || {
            let last: Vec<(String, Value)> = redis::from_redis_value(last?)?;
            let last = last.into_iter().next().map_or_else(|| "0-0".to_owned(), |(id, _)| id);
            let record = redis::from_redis_value::<Option<Vec<u8>>>(record?)?.unwrap_or_default();
            Ok(Self { last, was_notified: notified? != Value::Nil, entries: entries?, record })
        };
        Ok(all())
    }
}

/// Reads the entries of both streams, as `XREADGROUP` returns them.
fn read_entries(connection: &mut Connection, stream: &str) -> RedisResult<RedisResult<Vec<NewEntry>>> {
    let streams = match connection.piece()? {
        Piece::List(streams) => streams,
        Piece::Nil => 0,
        Piece::Refusal(line) => return Ok(refusal(line)?.extract_error().map(|_| Vec::new())),
        _ => return Err(damaged("entries are no list")),
    };
    let mut found = Vec::new();
    for _ in 0..streams {
        list(connection, Some(2))?;
        let is_redelivery = text(connection)? != stream.as_bytes();
        let count = list(connection, None)?;
        found.reserve(count.min(1_000));
        for _ in 0..count {
            list(connection, Some(2))?;
            let id = String::from_utf8_lossy(text(connection)?).into_owned();
            let mut entry = NewEntry { is_redelivery, id, ..NewEntry::default() };
            for _ in 0..list(connection, None)? / 2 {
                let field = match text(connection)? {
                    b"type" => Some(&mut entry.event_type),
                    b"event" => Some(&mut entry.event),
                    b"attempts" if is_redelivery => Some(&mut entry.attempts),
                    b"errors" if is_redelivery => Some(&mut entry.errors),
                    _ => None,
                };
                let value = text(connection)?;
                field.into_iter().for_each(|it| it.extend_from_slice(value));
            }
            found.push(entry);
        }
    }
    Ok(Ok(found))
}

/// Reads the header of a list, which has `wanted` pieces if that is known.
fn list(connection: &mut Connection, wanted: Option<usize>) -> RedisResult<usize> {
    match connection.piece()? {
        Piece::List(length) if wanted.is_none_or(|it| it == length) => Ok(length),
        // The fields of an entry that was removed.
        Piece::Nil if wanted.is_none() => Ok(0),
        _ => Err(damaged("an entry has another form")),
    }
}

fn text(connection: &mut Connection) -> RedisResult<&[u8]> {
    match connection.piece()? {
        Piece::Text(text) => Ok(text),
        _ => Err(damaged("a field is no text")),
    }
}
