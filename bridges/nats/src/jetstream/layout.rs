//! How the events are laid out in the stream: its name, its subjects and its partitions. The number of partitions is recorded beside the stream,
//! because all instances must agree on it.

use std::sync::atomic::{AtomicU64, Ordering};

use eventbroker::provider::partition_of;
use eventbroker::{Event, Pattern};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::api::Result;
use super::kv::{self, KeyValue, PARTITIONS};
use super::names;
use super::stream::{self, Accepted};
use crate::settings::Nats;
use crate::transport::Session;

/// The stream, its subjects and its partitions.
pub(crate) struct Layout {
    pub(crate) stream: String,
    pub(crate) prefix: String,
    pub(crate) group: String,
    /// The number of partitions; 0 is one stream that members compete for.
    pub(crate) partitions: u32,
    /// The last message before the stream was repartitioned: up to it, the subjects have another form.
    repartitioned_after: AtomicU64,
}

/// The recorded number of partitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PartitionRecord {
    pub(crate) partitions: u32,
    /// The last message before the stream was repartitioned.
    pub(crate) after: u64,
}

impl Layout {
    pub(crate) fn new(settings: &Nats) -> Self {
        Self {
            stream: settings.stream_name.clone(),
            prefix: settings.subject_prefix.clone(),
            group: settings.consumer_group.clone(),
            partitions: settings.partitions,
            repartitioned_after: AtomicU64::new(0),
        }
    }

    pub(crate) fn has_partitions(&self) -> bool {
        self.partitions > 0
    }

    /// The partition of an event, if there are partitions.
    pub(crate) fn partition_of(&self, event: &Event) -> Option<u32> {
        self.has_partitions().then(|| partition_of(event, self.partitions))
    }

    /// The partitions that a subscription has consumers for: `None` stands for the stream without partitions.
    pub(crate) fn all_partitions(&self) -> Vec<Option<u32>> {
        if self.has_partitions() { (0..self.partitions).map(Some).collect() } else { vec![None] }
    }

    /// The subjects of the events of a pattern, from a message on; none, which stands for all, if messages have an earlier form of subject.
    pub(crate) fn subjects(&self, pattern: &Pattern, from: u64) -> Vec<String> {
        if from <= self.repartitioned_after.load(Ordering::SeqCst) {
            return Vec::new();
        }
        vec![names::filter(&names::events(&self.prefix, self.partitions), pattern)]
    }

    /// The subject of the stream.
    pub(crate) fn stream_subject(&self) -> String {
        names::of_stream(&self.prefix, self.partitions)
    }

    /// The durable name of a subscription, with the name of its owner if it has one.
    pub(crate) fn durable(&self, name: &str, owner: &str) -> String {
        names::durable(&self.group, name, owner)
    }

    /// Whether a stream has the subjects of the settings.
    pub(crate) fn fits(&self, stream: &Value) -> bool {
        let subject = json!(self.stream_subject());
        stream["config"]["subjects"].as_array().is_some_and(|subjects| subjects.contains(&subject))
    }

    /// Compares the number of partitions of an existing stream with the settings.
    pub(super) async fn check(&self, session: &Session, kv: &KeyValue, stream: Option<&Value>) -> Result<Accepted> {
        Ok(match (recorded(session, kv).await?, stream) {
            (Some((_, record)), _) => self.compare(record.partitions),
            // A stream that is older than the record.
            (None, Some(stream)) if self.has_partitions() && !self.fits(stream) => self.compare(0),
            (None, _) => Ok(()),
        })
    }

    fn compare(&self, recorded: u32) -> Accepted {
        let (partitions, stream) = (self.partitions, &self.stream);
        if recorded == partitions {
            return Ok(());
        }
        Err(format!(
            "partitions: is {partitions}, but the stream {stream:?} has {recorded}; `eventbroker admin repartition` divides it anew"
        ))
    }

    /// Records the number of partitions, if none is recorded. Another instance may be faster, with another number.
    pub(super) async fn record(&self, session: &Session, kv: &KeyValue) -> Result<Accepted> {
        loop {
            if let Some((_, record)) = recorded(session, kv).await? {
                self.repartitioned_after.store(record.after, Ordering::SeqCst);
                return Ok(self.compare(record.partitions));
            }
            let after = self.repartitioned_after.load(Ordering::SeqCst);
            let record = PartitionRecord { partitions: self.partitions, after };
            if kv.replace(session, &key(kv), 0, kv::write(&record)).await?.is_some() {
                return Ok(Ok(()));
            }
        }
    }
}

/// The key of the record.
pub(crate) fn key(kv: &KeyValue) -> String {
    kv.key(PARTITIONS, "number")
}

/// The record and its sequence.
pub(crate) async fn recorded(session: &Session, kv: &KeyValue) -> Result<Option<(u64, PartitionRecord)>> {
    if stream::info(session, &kv.stream).await?.is_none() {
        return Ok(None);
    }
    let found = kv.get(session, &key(kv)).await?;
    Ok(found.and_then(|entry| Some((entry.sequence, kv::read(&entry)?))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_has_its_stored_form() {
        let (record, stored) = (PartitionRecord { partitions: 8, after: 41 }, r#"{"partitions":8,"after":41}"#);
        assert_eq!(serde_json::to_string(&record).expect("it is JSON"), stored);
        assert_eq!(serde_json::from_str::<PartitionRecord>(stored).expect("it is a record"), record);
    }
}
