//! The frames of [the NATS protocol](https://docs.nats.io/reference/reference-protocols/nats-protocol): parsed in place from a buffer, and
//! written to a buffer. No input or output happens here.

use std::fmt::Display;
use std::io::Write as _;
use std::sync::Arc;

use async_nats::{HeaderMap, Subject};
use bytes::{Bytes, BytesMut};

/// The longest line: `INFO` lists every server of a cluster.
const LONGEST_LINE: usize = 256 * 1024;
/// The largest message: above the largest `max_payload` that a server accepts in its configuration.
const LARGEST: usize = 128 << 20;
/// The first line of a header block.
const VERSION: &[u8] = b"NATS/1.0";

/// A frame of the server.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Frame {
    Message(Incoming),
    /// The server's description of itself, as JSON.
    Info(Bytes),
    Ping,
    Pong,
    Ok,
    Refusal(String),
}

/// A message of a subscription.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Incoming {
    /// The number of the subscription.
    pub(crate) number: u64,
    pub(crate) subject: Subject,
    /// A copy, because it outlives the buffer of the message.
    pub(crate) reply: Option<Arc<str>>,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
}

/// The header block of a message, unparsed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(Bytes);

/// The first line of a message, split.
struct Line<'a> {
    subject: &'a [u8],
    number: u64,
    reply: Option<&'a [u8]>,
    headers: usize,
    total: usize,
}

impl Headers {
    /// Takes a header block.
    pub(crate) fn read(block: Bytes) -> Self {
        Self(block)
    }

    /// The first value of a header.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut lines = self.0.split(|it| *it == b'\n').skip(1);
        let value = lines.find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b":"))?;
        str::from_utf8(value).ok().map(str::trim)
    }

    /// The status that the server sends in place of a message.
    pub(crate) fn status(&self) -> Option<u16> {
        let line = self.0.split(|it| *it == b'\n').next()?.strip_prefix(VERSION)?;
        str::from_utf8(line).ok()?.split_ascii_whitespace().next()?.parse().ok()
    }
}

/// The headers as the client library parses them.
impl From<HeaderMap> for Headers {
    fn from(map: HeaderMap) -> Self {
        let mut block = HeaderBlock::default();
        for (name, values) in map.iter() {
            values.iter().for_each(|value| block.add(name.as_ref(), value.as_str()));
        }
        Self(Bytes::from(block.end()))
    }
}

/// A header block to send.
pub(crate) struct HeaderBlock(Vec<u8>);

impl Default for HeaderBlock {
    fn default() -> Self {
        Self([VERSION, b"\r\n"].concat())
    }
}

impl HeaderBlock {
    /// Adds a header. A value with a line break is left out, since no header can hold it; the event's body has it too.
    pub(crate) fn add(&mut self, name: &str, value: &str) {
        if !value.contains(['\r', '\n']) {
            let parts = [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"];
            parts.iter().for_each(|part| self.0.extend_from_slice(part));
        }
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(b"\r\n");
        self.0
    }
}

/// Takes the next complete frame from a buffer. After an error the buffer is useless.
pub(crate) fn next(from: &mut BytesMut) -> Result<Option<Frame>, String> {
    let Some(end) = from.iter().position(|it| *it == b'\n') else {
        return if from.len() > LONGEST_LINE { Err("a line is too long".to_owned()) } else { Ok(None) };
    };
    let line = from[..end].trim_ascii_end();
    let (verb, rest) = line.split_at(line.iter().position(|it| matches!(it, b' ' | b'\t')).unwrap_or(line.len()));
    let frame = match verb {
        b"MSG" | b"HMSG" => {
            let Line { subject, number, reply, headers, total } =
                Line::parse(rest, verb == b"HMSG").ok_or_else(|| damaged(line))?;
            let begin = end + 1;
            if from.len() < begin + total + 2 {
                return Ok(None);
            }
            let range = |part: &[u8]| {
                let start = part.as_ptr() as usize - from.as_ptr() as usize;
                start..start + part.len()
            };
            let subject = range(subject);
            let reply = reply.map(|it| str::from_utf8(it).map(Arc::from)).transpose().map_err(unreadable)?;
            let whole = from.split_to(begin + total + 2).freeze();
            if !whole.ends_with(b"\r\n") {
                return Err("a message is longer than its frame says".to_owned());
            }
            return Ok(Some(Frame::Message(Incoming {
                number,
                subject: Subject::from_utf8(whole.slice(subject)).map_err(unreadable)?,
                reply,
                headers: Headers(whole.slice(begin..begin + headers)),
                payload: whole.slice(begin + headers..begin + total),
            })));
        }
        b"PING" => Frame::Ping,
        b"PONG" => Frame::Pong,
        b"+OK" => Frame::Ok,
        b"-ERR" => Frame::Refusal(String::from_utf8_lossy(rest).trim().trim_matches('\'').to_owned()),
        b"INFO" => Frame::Info(Bytes::copy_from_slice(rest.trim_ascii())),
        _ => return Err(damaged(line)),
    };
    let _ = from.split_to(end + 1);
    Ok(Some(frame))
}

impl<'a> Line<'a> {
    fn parse(rest: &'a [u8], has_headers: bool) -> Option<Self> {
        let mut words = rest.split(|it| matches!(it, b' ' | b'\t')).filter(|word| !word.is_empty());
        let (subject, number) = (words.next()?, words.next()?);
        let (mut last, mut before, mut reply) = (words.next()?, None, None);
        for word in words {
            (reply, before, last) = (before, Some(last), word);
        }
        let (headers, reply) = if has_headers { (before?, reply) } else { (b"0".as_slice(), before) };
        let number_of = |word: &[u8]| str::from_utf8(word).ok()?.parse::<u64>().ok();
        let length_of = |word: &[u8]| number_of(word).filter(|it| *it <= LARGEST as u64).map(|it| it as usize);
        let (headers, total) = (length_of(headers)?, length_of(last)?);
        (headers <= total).then_some(Self { subject, number: number_of(number)?, reply, headers, total })
    }
}

fn damaged(line: &[u8]) -> String {
    format!("the server sent {:?}", String::from_utf8_lossy(&line[..line.len().min(100)]))
}

fn unreadable(error: impl Display) -> String {
    format!("a subject can't be read: {error}")
}

/// Writes a message. Returns its size as the server's limit counts it.
pub(crate) fn publish(
    to: &mut Vec<u8>,
    subject: &str,
    reply: &str,
    headers: Option<HeaderBlock>,
    payload: &[u8],
) -> usize {
    let block = headers.map(HeaderBlock::end).unwrap_or_default();
    let total = block.len() + payload.len();
    to.extend_from_slice(if block.is_empty() { b"PUB " } else { b"HPUB " });
    to.extend_from_slice(subject.as_bytes());
    if !reply.is_empty() {
        to.push(b' ');
        to.extend_from_slice(reply.as_bytes());
    }
    if !block.is_empty() {
        number(to, block.len());
    }
    number(to, total);
    to.extend_from_slice(b"\r\n");
    to.extend_from_slice(&block);
    to.extend_from_slice(payload);
    to.extend_from_slice(b"\r\n");
    total
}

/// Writes a space and a number.
fn number(to: &mut Vec<u8>, mut number: usize) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    while number > 0 || at == digits.len() {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    to.push(b' ');
    to.extend_from_slice(&digits[at..]);
}

pub(crate) fn subscribe(to: &mut Vec<u8>, subject: &str, number: u64) {
    // A write to memory does not fail.
    let _ = write!(to, "SUB {subject} {number}\r\n");
}

pub(crate) fn unsubscribe(to: &mut Vec<u8>, number: u64) {
    let _ = write!(to, "UNSUB {number}\r\n");
}

pub(crate) fn connect(to: &mut Vec<u8>, options: &serde_json::Value) {
    let _ = write!(to, "CONNECT {options}\r\n");
}

pub(crate) fn ping(to: &mut Vec<u8>) {
    to.extend_from_slice(b"PING\r\n");
}

pub(crate) fn pong(to: &mut Vec<u8>) {
    to.extend_from_slice(b"PONG\r\n");
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    /// A frame as text and as a value, made without the parser.
    fn sent_frame() -> impl Strategy<Value = (String, Frame)> {
        let subject = "[a-zA-Z_$.0-9-]{1,40}";
        let headers = option::of(vec(("[A-Za-z-]{1,12}", "[ -9;-~]{0,20}"), 0..4));
        let message = (subject, any::<u64>(), option::of(subject), headers, "[a-z\r\n]{0,300}");
        let message = message.prop_map(|(subject, number, reply, headers, payload)| {
            let block = headers.map(|headers| {
                let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                format!("NATS/1.0\r\n{lines}\r\n")
            });
            let reply_word = reply.as_ref().map(|it| format!("{it} ")).unwrap_or_default();
            let text = match &block {
                Some(block) => {
                    let total = block.len() + payload.len();
                    format!("HMSG {subject} {number} {reply_word}{} {total}\r\n{block}{payload}\r\n", block.len())
                }
                None => format!("MSG {subject} {number} {reply_word}{}\r\n{payload}\r\n", payload.len()),
            };
            let frame = Frame::Message(Incoming {
                number,
                subject: subject.into(),
                reply: reply.map(Arc::from),
                headers: Headers::read(Bytes::from(block.unwrap_or_default())),
                payload: Bytes::from(payload),
            });
            (text, frame)
        });
        let refusal = "[a-z][a-zA-Z ]{0,30}[a-z]".prop_map(|it| (format!("-ERR '{it}'\r\n"), Frame::Refusal(it)));
        prop_oneof![
            4 => message,
            1 => Just(("PING\r\n".to_owned(), Frame::Ping)),
            1 => Just(("PONG\r\n".to_owned(), Frame::Pong)),
            1 => Just(("+OK\r\n".to_owned(), Frame::Ok)),
            1 => refusal,
            1 => "[a-z]{0,50}".prop_map(|it| (format!("INFO {it}\r\n"), Frame::Info(Bytes::from(it)))),
        ]
    }

    proptest! {
        #[test]
        fn frames_are_parsed_from_chunks_of_any_size(all in vec(sent_frame(), 0..12), cut in 1_usize..200) {
            let text: String = all.iter().map(|(text, _)| text.as_str()).collect();
            let (mut bytes, mut read) = (BytesMut::new(), Vec::new());
            for part in text.as_bytes().chunks(cut) {
                bytes.extend_from_slice(part);
                while let Some(frame) = next(&mut bytes).expect("it is well formed") {
                    read.push(frame);
                }
            }
            let sent: Vec<Frame> = all.into_iter().map(|(_, frame)| frame).collect();
            prop_assert_eq!(read, sent);
            prop_assert!(bytes.is_empty());
        }

        #[test]
        fn damaged_frames_are_refused_without_a_panic(
            verb in prop_oneof![Just("MSG"), Just("HMSG"), Just("-ERR"), Just("X"), Just("")],
            rest in "[ a0-9\r\n-]{0,80}",
        ) {
            let mut bytes = BytesMut::from(format!("{verb} {rest}").as_bytes());
            // Each frame takes bytes of the buffer, so the loop ends.
            let frames = (0..200).map_while(|_| next(&mut bytes).ok().flatten()).count();
            prop_assert!(frames < 200);
        }

        #[test]
        fn a_written_message_is_parsed(
            headers in vec(("[A-Za-z-]{1,12}", "[ -~]{0,20}"), 1..5),
            payload in vec(any::<u8>(), 0..300),
        ) {
            let mut block = HeaderBlock::default();
            headers.iter().for_each(|(name, value)| block.add(name, value));
            let mut written = Vec::new();
            let size = publish(&mut written, "a.b", "c.1", Some(block), &payload);
            // As the server delivers it: with another verb and the number of the subscription.
            let text = written.strip_prefix(b"HPUB a.b c.1 ").expect("the line of the message");
            let mut bytes = BytesMut::from([b"HMSG a.b 7 c.1 ".as_slice(), text].concat().as_slice());
            let Ok(Some(Frame::Message(message))) = next(&mut bytes) else { panic!("it is a message") };
            prop_assert_eq!(&message.payload[..], &payload[..]);
            prop_assert_eq!(message.reply.as_deref(), Some("c.1"));
            prop_assert_eq!(message.headers.0.len() + payload.len(), size);
            for (name, value) in &headers {
                let first = headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.trim());
                prop_assert_eq!(message.headers.get(name), first, "{}", value);
            }
            prop_assert_eq!(message.headers.status(), None);
        }
    }

    #[test]
    fn the_first_line_has_the_status() {
        let status = |text: &'static str| Headers::read(Bytes::from_static(text.as_bytes())).status();
        assert_eq!(status("NATS/1.0 503\r\n\r\n"), Some(503));
        assert_eq!(status("NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\n\r\n"), Some(408));
        assert_eq!(status("NATS/1.0\r\nA: 503\r\n\r\n"), None);
        assert_eq!(status(""), None);
    }

    #[test]
    fn a_value_with_a_line_break_is_left_out() {
        let mut block = HeaderBlock::default();
        block.add("A", "one\r\nB: two");
        assert_eq!(block.end(), b"NATS/1.0\r\n\r\n");
    }
}
