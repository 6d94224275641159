//! Requests as the server reads them ([RESP](https://redis.io/docs/latest/develop/reference/protocol-spec/)): an event is written once, straight
//! into what is sent.

use redis::RedisResult;

use crate::transport::socket::Connection;

/// Sends questions, one ahead of the answer that is read. `read` reads each answer while the server works on the next one, and says whether to
/// go on, or what was refused. Fails with the first refusal, once all answers are read.
pub(crate) fn exchange(
    connection: &mut Connection,
    questions: &[Request],
    mut read: impl FnMut(&mut Connection) -> RedisResult<RedisResult<bool>>,
) -> RedisResult<()> {
    let (mut sent, mut answered, mut goes_on, mut refused) = (0, 0, true, None);
    while answered < sent || (goes_on && sent < questions.len()) {
        while goes_on && sent < questions.len() && sent <= answered + 1 {
            connection.send(questions[sent].rest())?;
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

/// Bytes of a first request that the server can begin with while the rest is still being written, and of those that follow.
const FIRST: usize = 8 * 1024;
const NEXT: usize = 32 * 1024;

/// Commands that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct Request {
    bytes: Vec<u8>,
    has_begun: bool,
}

impl Request {
    /// Begins anew.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.has_begun = false;
    }

    /// Begins a command of so many words; they follow.
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

    /// What is to be sent by now, if it is enough.
    pub(crate) fn part(&mut self) -> Option<&[u8]> {
        (self.bytes.len() >= if self.has_begun { NEXT } else { FIRST }).then_some(&self.bytes)
    }

    /// A part was sent.
    pub(crate) fn sent(&mut self) {
        self.bytes.clear();
        self.has_begun = true;
    }

    pub(crate) fn rest(&self) -> &[u8] {
        &self.bytes
    }
}
