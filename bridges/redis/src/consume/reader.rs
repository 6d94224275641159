//! Reading new entries of the one stream for which members compete: many entries ahead, in a pipeline of requests.

use eventbroker::provider::BackendError;

use super::batch_reply::BatchReply;
use crate::scripts::{Client, Layout};
use crate::transport::{Request, exchange};

/// Entries of the first request, which overlaps with no parsing; and of each later one, which the server answers while the reply before
/// it is parsed.
const FIRST: usize = 64;
const CHUNK: usize = 256;

/// The place to read, and the reader.
pub(super) struct Reader<'a> {
    pub(super) xgroup: &'a str,
    /// The name of the consumer.
    pub(super) member: &'a str,
    /// The last entry of the notify stream (key `bell`) when it was last read.
    pub(super) notified: &'a str,
}

impl Reader<'_> {
    /// Reads up to `most` new entries, and returns how many there were. `take` gets each reply, and returns whether to continue.
    pub(super) fn read_new(
        &self,
        client: &mut Client,
        most: usize,
        mut take: impl FnMut(BatchReply) -> bool,
    ) -> Result<usize, BackendError> {
        let (mut requests, mut counts, mut left) = (Vec::new(), Vec::new(), most);
        while left > 0 {
            let count = left.min(if requests.is_empty() { FIRST } else { CHUNK });
            requests.push(self.request(&client.layout, count));
            counts.push(count);
            left -= count;
        }
        let (mut counts, mut found, stream) = (counts.into_iter(), 0, client.layout.streams[0].clone());
        client.link.call(|connection| {
            exchange(connection, &requests, |connection| {
                let reply = match BatchReply::read(connection, &stream)? {
                    Ok(reply) => reply,
                    Err(refusal) => return Ok(Err(refusal)),
                };
                let entries = reply.entries.len();
                found += entries;
                let is_full = counts.next().is_some_and(|count| entries >= count);
                Ok(Ok(take(reply) && is_full))
            })
        })?;
        Ok(found)
    }

    /// The commands of one read: the last entry of the stream, the notify stream, the entries, and the subscription's record.
    fn request(&self, layout: &Layout, count: usize) -> Request {
        let count = count.to_string();
        let (stream, redeliveries) = (&*layout.streams[0], layout.key_of("again", self.xgroup));
        let mut request = Request::default();
        request.words(&["XREVRANGE", stream, "+", "-", "COUNT", "1"]);
        request.words(&["XREAD", "COUNT", "1", "STREAMS", &layout.key("bell"), self.notified]);
        let group = ["XREADGROUP", "GROUP", self.xgroup, self.member, "COUNT", &count];
        request.words(&[&group[..], &["STREAMS", &redeliveries, stream, ">", ">"]].concat());
        request.words(&["HGET", &layout.key("subscriptions"), self.xgroup]);
        request
    }
}
