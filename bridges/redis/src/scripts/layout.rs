//! The names of keys.

use eventbroker::Event;
use eventbroker::provider::partition_of;

use crate::settings::Redis;

/// The keys of one provider: the streams, and the prefix of all other keys.
pub(crate) struct Layout {
    pub(crate) prefix: String,
    /// The streams of the events. Scripts get their numbers, which count from 1; 0 is the redelivery stream of a subscription.
    pub(crate) streams: Vec<String>,
    /// The number of partitions, each with one owner per subscription; 0 is one stream for which members compete.
    pub(crate) partitions: u32,
}

impl Layout {
    pub(crate) fn new(settings: &Redis) -> Self {
        let name = &settings.stream_name;
        let (prefix, streams) = match settings.partitions {
            0 => (name.clone(), vec![name.clone()]),
            // The braces keep all keys in one slot of a cluster.
            partitions => (format!("{{{name}}}"), (0..partitions).map(|it| format!("{{{name}}}:p{it}")).collect()),
        };
        Self { prefix, streams, partitions: settings.partitions }
    }

    /// A key that is not of one stream.
    pub(crate) fn key(&self, name: &str) -> String {
        format!("{}:{name}", self.prefix)
    }

    /// A key of a subscription, or of a group.
    pub(crate) fn key_of(&self, name: &str, of: &str) -> String {
        format!("{}:{name}:{of}", self.prefix)
    }

    /// The index of the stream for an event.
    pub(crate) fn index_for(&self, event: &Event) -> usize {
        partition_of(event, self.partitions) as usize
    }

    /// The stream of a delivery.
    pub(crate) fn delivery_stream(&self, xgroup: &str, number: usize) -> String {
        if number == 0 { self.key_of("again", xgroup) } else { self.streams[number - 1].clone() }
    }
}

/// The key of the number of partitions. Its name does not depend on that number.
pub(crate) fn partitions_key(stream_name: &str) -> String {
    format!("{stream_name}:partitions")
}
