//! What comes back when a claimer reads what is new: only what it needs of it is taken, from where it lies.

use redis::{RedisResult, Value};

use crate::transport::reply::{Piece, damaged, refusal};
use crate::transport::socket::Connection;

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

#[derive(Default)]
pub(crate) struct Entry {
    /// It is one that was made again.
    pub(crate) is_again: bool,
    pub(crate) name: String,
    pub(crate) event_type: Vec<u8>,
    pub(crate) event: Vec<u8>,
    /// Of a retry that has waited: the calls before it, and what they failed of.
    pub(crate) attempts: Vec<u8>,
    pub(crate) errors: Vec<u8>,
}

impl Answer {
    /// Reads it, to its end; or what was refused.
    pub(crate) fn read(connection: &mut Connection, stream: &str) -> RedisResult<RedisResult<Self>> {
        let counted = connection.value()?.extract_error();
        let last = connection.value()?.extract_error();
        let rung = connection.value()?.extract_error();
        let entries = entries(connection, stream)?;
        let info = connection.value()?.extract_error();
        let all = || {
            counted?;
            let last: Vec<(String, Value)> = redis::from_redis_value(last?)?;
            let last = last.into_iter().next().map_or_else(|| "0-0".to_owned(), |(name, _)| name);
            let info = redis::from_redis_value::<Option<Vec<u8>>>(info?)?.unwrap_or_default();
            Ok(Self { last, is_rung: rung? != Value::Nil, entries: entries?, info })
        };
        Ok(all())
    }
}

/// The entries of both streams, as `XREADGROUP` gives them.
fn entries(connection: &mut Connection, stream: &str) -> RedisResult<RedisResult<Vec<Entry>>> {
    let streams = match connection.piece()? {
        Piece::List(streams) => streams,
        Piece::Nil => 0,
        Piece::Refusal(line) => return Ok(refusal(line)?.extract_error().map(|_| Vec::new())),
        _ => return Err(damaged("entries are no list")),
    };
    let mut found = Vec::new();
    for _ in 0..streams {
        list(connection, Some(2))?;
        let is_again = text(connection)? != stream.as_bytes();
        let count = list(connection, None)?;
        found.reserve(count.min(1_000));
        for _ in 0..count {
            list(connection, Some(2))?;
            let name = String::from_utf8_lossy(text(connection)?).into_owned();
            let mut entry = Entry { is_again, name, ..Entry::default() };
            for _ in 0..list(connection, None)? / 2 {
                let wanted = match text(connection)? {
                    b"type" => Some(&mut entry.event_type),
                    b"event" => Some(&mut entry.event),
                    b"attempts" if is_again => Some(&mut entry.attempts),
                    b"errors" if is_again => Some(&mut entry.errors),
                    _ => None,
                };
                let value = text(connection)?;
                wanted.into_iter().for_each(|it| it.extend_from_slice(value));
            }
            found.push(entry);
        }
    }
    Ok(Ok(found))
}

/// How long a list is, which should be so long.
fn list(connection: &mut Connection, wanted: Option<usize>) -> RedisResult<usize> {
    match connection.piece()? {
        Piece::List(length) if wanted.is_none_or(|it| it == length) => Ok(length),
        // It was removed.
        Piece::Nil if wanted.is_none() => Ok(0),
        _ => Err(damaged("an entry is none")),
    }
}

fn text(connection: &mut Connection) -> RedisResult<&[u8]> {
    match connection.piece()? {
        Piece::Text(text) => Ok(text),
        _ => Err(damaged("a text is none")),
    }
}
