//! Messages as the bridge reads them, made from those of the client library without a copy.

use async_nats::{HeaderMap, HeaderName, Message, Subject};
use bytes::Bytes;

/// A message of a subscription.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) subject: Subject,
    pub(crate) reply: Option<Subject>,
    pub(crate) headers: Headers,
    pub(crate) payload: Bytes,
}

impl From<Message> for Incoming {
    fn from(message: Message) -> Self {
        let Message { subject, reply, payload, headers, status, .. } = message;
        let headers = Headers { map: headers.unwrap_or_default(), status: status.map(|it| it.as_u16()) };
        Self { subject, reply, headers, payload }
    }
}

/// The headers of a message, as the client library parses them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Headers {
    map: HeaderMap,
    status: Option<u16>,
}

impl Headers {
    /// Reads a header block.
    pub(crate) fn read(block: &[u8]) -> Self {
        let mut map = HeaderMap::new();
        let lines = block.split(|it| *it == b'\n').skip(1).filter_map(|line| str::from_utf8(line).ok());
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if let Ok(name) = name.parse::<HeaderName>() {
                map.append(name, value.trim());
            }
        }
        Self { map, status: None }
    }

    /// The first value of a header.
    pub(crate) fn get(&self, name: &'static str) -> Option<&str> {
        self.map.get(HeaderName::from_static(name)).map(|value| value.as_str())
    }

    /// The status that the server sends in place of a message.
    pub(crate) fn status(&self) -> Option<u16> {
        self.status
    }
}

impl From<HeaderMap> for Headers {
    fn from(map: HeaderMap) -> Self {
        Self { map, status: None }
    }
}

/// The headers of a message to send. A value with a line break is left out, since no header can hold it; the event's body has it too.
pub(super) fn header_map(headers: &[(&'static str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers.iter().filter(|(_, value)| !value.contains(['\r', '\n'])) {
        map.insert(HeaderName::from_static(name), *value);
    }
    map
}
