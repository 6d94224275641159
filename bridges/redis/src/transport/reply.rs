//! Replies ([RESP](https://redis.io/docs/latest/develop/reference/protocol-spec/), version 2), read from any source of bytes: piece by piece
//! in place, or whole as values of the client library. Refusals become errors of the client library.

use std::io::{self, Read};
use std::ops::Range;

use redis::{RedisError, RedisResult, Value, parse_redis_value};

/// Bytes that are read at a time, and the capacity that an empty buffer keeps.
const KEPT: usize = 64 * 1024;
/// The most bytes of a text, by the protocol; and of a line.
const LONGEST: usize = 512 << 20;
const LONGEST_LINE: usize = 64 * 1024;
/// The most levels of nested lists. Replies to the bridge have fewer.
const DEPTH: usize = 16;

/// A piece of a reply.
#[derive(Debug, PartialEq)]
pub(crate) enum Piece<'a> {
    /// A simple string, such as OK.
    Simple(&'a [u8]),
    /// An error, as a line.
    Refusal(&'a [u8]),
    Number(i64),
    Text(&'a [u8]),
    Nil,
    /// The header of a list: this number of pieces follows.
    List(usize),
}

/// The bytes that were received and not yet parsed.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    bytes: Vec<u8>,
    /// The part of `bytes` that is not parsed.
    left: Range<usize>,
}

impl Reader {
    /// Reads a piece; blocks until it is there. After an error the position in the reply is unknown.
    pub(crate) fn piece(&mut self, from: &mut impl Read) -> RedisResult<Piece<'_>> {
        let line = self.line(from)?;
        let kind = self.bytes[line.start];
        let rest = line.start + 1..line.end;
        Ok(match kind {
            b'+' => Piece::Simple(&self.bytes[rest]),
            b'-' => Piece::Refusal(&self.bytes[rest]),
            b':' => Piece::Number(number(&self.bytes[rest])?),
            b'$' => match number(&self.bytes[rest])? {
                -1 => Piece::Nil,
                length => {
                    let text = self.take(from, checked(length)?)?;
                    Piece::Text(&self.bytes[text])
                }
            },
            b'*' => match number(&self.bytes[rest])? {
                -1 => Piece::Nil,
                length => Piece::List(checked(length)?),
            },
            _ => return Err(damaged("it begins with an unknown sign")),
        })
    }

    /// Reads a whole reply. A refusal is a reply too.
    pub(crate) fn value(&mut self, from: &mut impl Read) -> RedisResult<Value> {
        self.nested(from, DEPTH)
    }

    fn nested(&mut self, from: &mut impl Read, depth: usize) -> RedisResult<Value> {
        let length = match self.piece(from)? {
            Piece::Simple(b"OK") => return Ok(Value::Okay),
            Piece::Simple(text) => return Ok(Value::SimpleString(String::from_utf8_lossy(text).into_owned())),
            Piece::Refusal(line) => return refusal(line),
            Piece::Number(number) => return Ok(Value::Int(number)),
            Piece::Text(text) => return Ok(Value::BulkString(text.to_vec())),
            Piece::Nil => return Ok(Value::Nil),
            Piece::List(length) => length,
        };
        let depth = depth.checked_sub(1).ok_or_else(|| damaged("it is too deep"))?;
        let mut values = Vec::with_capacity(length.min(1_000));
        for _ in 0..length {
            values.push(self.nested(from, depth)?);
        }
        Ok(Value::Array(values))
    }

    /// Reads a line; the range has no line end.
    fn line(&mut self, from: &mut impl Read) -> RedisResult<Range<usize>> {
        let mut searched = 0;
        loop {
            let left = &self.bytes[self.left.clone()];
            if let Some(end) = left[searched..].iter().position(|it| *it == b'\n') {
                let end = searched + end;
                let start = self.left.start;
                self.left.start += end + 1;
                if end < 2 || left[end - 1] != b'\r' {
                    return Err(damaged("a line is empty"));
                }
                return Ok(start..start + end - 1);
            }
            searched = left.len();
            if searched > LONGEST_LINE {
                return Err(damaged("a line is too long"));
            }
            self.fill(from, searched + 1)?;
        }
    }

    /// Reads a text of `length` bytes, and its line end.
    fn take(&mut self, from: &mut impl Read, length: usize) -> RedisResult<Range<usize>> {
        while self.left.len() < length + 2 {
            self.fill(from, length + 2)?;
        }
        let start = self.left.start;
        self.left.start += length + 2;
        if &self.bytes[start + length..self.left.start] != b"\r\n" {
            return Err(damaged("a text is longer than it says"));
        }
        Ok(start..start + length)
    }

    /// Whether a non-blocking source has data.
    pub(crate) fn has_data(&mut self, from: &mut impl Read) -> RedisResult<bool> {
        match self.fill(from, 1) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(!self.left.is_empty()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads more bytes into a buffer with room for `wanted` unparsed ones.
    fn fill(&mut self, from: &mut impl Read, wanted: usize) -> io::Result<()> {
        if self.left.is_empty() {
            self.left = 0..0;
            self.bytes.truncate(KEPT);
            self.bytes.shrink_to(KEPT);
        } else if self.left.start + wanted > self.bytes.len() {
            self.bytes.copy_within(self.left.clone(), 0);
            self.left = 0..self.left.len();
        }
        if self.left.end == self.bytes.len() {
            // The buffer grows with the bytes that arrive, not with the length that the server announces.
            let more = wanted.saturating_sub(self.bytes.len()).clamp(KEPT, self.bytes.len().max(KEPT));
            self.bytes.resize(self.bytes.len() + more, 0);
        }
        loop {
            match from.read(&mut self.bytes[self.left.end..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.left.end += count;
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// The client library's error for a refusal.
pub(crate) fn refusal(line: &[u8]) -> RedisResult<Value> {
    parse_redis_value(&[b"-", line, b"\r\n"].concat())
}

fn number(digits: &[u8]) -> RedisResult<i64> {
    str::from_utf8(digits).ok().and_then(|it| it.parse().ok()).ok_or_else(|| damaged("a number is malformed"))
}

fn checked(length: i64) -> RedisResult<usize> {
    usize::try_from(length).ok().filter(|it| *it <= LONGEST).ok_or_else(|| damaged("a length is out of bounds"))
}

/// The error for bytes that are no reply, or not one to the request.
pub(crate) fn damaged(problem: &'static str) -> RedisError {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server's reply is damaged: {problem}")).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use redis::Value;

    use super::*;

    /// A source that returns its bytes in parts of these sizes, in turn.
    struct Parts<'a>(&'a [u8], std::iter::Cycle<std::slice::Iter<'a, usize>>);

    impl Read for Parts<'_> {
        fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
            let count = (*self.1.next().expect("a cycle")).min(bytes.len()).min(self.0.len());
            bytes[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Ok(count)
        }
    }

    /// A reply as the server writes it.
    fn answer() -> impl Strategy<Value = Vec<u8>> {
        let text = |sign: char| {
            move |text: Vec<u8>| [format!("{sign}{}\r\n", text.len()).as_bytes(), &text[..], b"\r\n"].concat()
        };
        let leaf = prop_oneof![
            "\\+[A-Za-z0-9 -]{1,20}\r\n".prop_map(String::into_bytes),
            Just(b"+OK\r\n".to_vec()),
            "-[A-Z]{2,10} [a-z ']{0,30}\r\n".prop_map(String::into_bytes),
            any::<i64>().prop_map(|number| format!(":{number}\r\n").into_bytes()),
            Just(b"$-1\r\n".to_vec()),
            Just(b"*-1\r\n".to_vec()),
            prop::collection::vec(any::<u8>(), 0..100).prop_map(text('$')),
            (0_usize..300_000).prop_map(|length| vec![b'x'; length]).prop_map(text('$')),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop::collection::vec(inner, 0..8)
                .prop_map(|list| [format!("*{}\r\n", list.len()).into_bytes(), list.concat()].concat())
        })
    }

    proptest! {
        #[test]
        fn replies_are_read_as_by_the_client_library(
            answers in prop::collection::vec(answer(), 1..5),
            parts in prop::collection::vec(prop_oneof![1_usize..20, 1_000_usize..100_000], 1..5),
        ) {
            let (bytes, mut reader) = (answers.concat(), Reader::default());
            let mut source = Parts(&bytes, parts.iter().cycle());
            for answer in &answers {
                let read = reader.value(&mut source).expect("it is whole");
                prop_assert_eq!(read, parse_redis_value(answer).expect("it is whole"));
            }
            prop_assert!(reader.value(&mut source).is_err(), "the source is at its end");
        }

        #[test]
        fn arbitrary_bytes_are_an_error_or_a_value(
            sign in prop::sample::select(b"+-:$*?".as_slice()),
            bytes in prop::collection::vec(prop_oneof![prop::sample::select(b"0123456789-\r\n+:$*".as_slice()), any::<u8>()], 0..60),
        ) {
            let bytes = [&[sign][..], &bytes].concat();
            let (mut reader, mut source) = (Reader::default(), Parts(&bytes, [7].iter().cycle()));
            while reader.value(&mut source).is_ok() {}
            prop_assert!(reader.bytes.len() <= 2 * KEPT, "an announced length takes no room before its bytes arrive");
        }
    }

    #[test]
    fn bounds_are_kept() {
        let read = |bytes: &[u8]| Reader::default().value(&mut &*bytes);
        let damage = |bytes: &[u8]| read(bytes).expect_err("it is damaged").to_string();
        assert_eq!(read(b"$0\r\n\r\n").expect("it is whole"), Value::BulkString(Vec::new()));
        assert!(damage(b"$536870913\r\n").ends_with("a length is out of bounds"));
        assert!(damage(b"*-2\r\n").ends_with("a length is out of bounds"));
        assert!(damage(&b"*1\r\n".repeat(17)).ends_with("it is too deep"));
        assert!(damage(&[b'+'; 70_000]).ends_with("a line is too long"));
        assert!(damage(b"$2\r\nabc\r\n").ends_with("a text is longer than it says"));
        assert!(damage(b"\r\n").ends_with("a line is empty"));
    }
}
