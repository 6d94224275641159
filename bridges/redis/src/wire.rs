//! Requests as the server reads them ([RESP](https://redis.io/docs/latest/develop/reference/protocol-spec/)): an event is written once, straight
//! into what is sent.

use std::io::Write as _;

/// Bytes of a first request that the server can begin with while the rest is still being written, and of those that follow.
const FIRST: usize = 4 * 1024;
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
        self.bytes.push(kind);
        write!(self.bytes, "{number}\r\n").expect("a number can always be written to memory");
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
