//! Commands as bytes ([RESP](https://redis.io/docs/latest/develop/reference/protocol-spec/)): an event is written once, straight into the
//! bytes that are sent.

use redis::RedisResult;

use super::socket::Connection;

/// Bytes of the first part of a request, with which the server begins while the rest is written; and of each later part.
const FIRST: usize = 8 * 1024;
const NEXT: usize = 32 * 1024;

/// Sends requests, one ahead of the reply that is read, so that the server works on a request while `read` reads the reply to the one
/// before. `read` returns whether to continue, or a refusal. Reads all replies, then fails with the first refusal.
pub(crate) fn exchange(
    connection: &mut Connection,
    requests: &[Request],
    mut read: impl FnMut(&mut Connection) -> RedisResult<RedisResult<bool>>,
) -> RedisResult<()> {
    let (mut sent, mut answered, mut goes_on, mut refused) = (0, 0, true, None);
    while answered < sent || (goes_on && sent < requests.len()) {
        while goes_on && sent < requests.len() && sent <= answered + 1 {
            connection.send(requests[sent].rest())?;
            sent += 1;
        }
        match read(connection)? {
            Ok(more) => goes_on &= more,
            Err(refusal) => {
                refused.get_or_insert(refusal);
                goes_on = false;
            }
        }
        answered += 1;
    }
    refused.map_or(Ok(()), Err)
}

/// Commands that are not sent yet.
#[derive(Debug, Default)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    has_begun: bool,
}

impl Request {
    /// Empties the request. Its buffer stays.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.has_begun = false;
    }

    /// Begins a command of `words` words, which follow.
    pub(crate) fn command(&mut self, words: usize) -> &mut Self {
        self.header(b'*', words);
        self
    }

    pub(crate) fn word(&mut self, word: impl AsRef<[u8]>) -> &mut Self {
        let word = word.as_ref();
        self.header(b'$', word.len());
        self.bytes.extend_from_slice(word);
        self.bytes.extend_from_slice(b"\r\n");
        self
    }

    /// Appends a whole command.
    pub(crate) fn words(&mut self, words: &[&str]) -> &mut Self {
        self.command(words.len());
        words.iter().for_each(|word| _ = self.word(word));
        self
    }

    fn header(&mut self, kind: u8, number: usize) {
        let mut digits = [0; 22];
        let (mut at, mut left) = (digits.len() - 2, number);
        digits[at..].copy_from_slice(b"\r\n");
        loop {
            at -= 1;
            digits[at] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        self.bytes.push(kind);
        self.bytes.extend_from_slice(&digits[at..]);
    }

    /// The bytes to send now, if they are enough for a part.
    pub(crate) fn part(&mut self) -> Option<&[u8]> {
        (self.bytes.len() >= if self.has_begun { NEXT } else { FIRST }).then_some(&self.bytes)
    }

    /// Drops the part that was sent.
    pub(crate) fn sent(&mut self) {
        self.bytes.clear();
        self.has_begun = true;
    }

    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes
    }
}
