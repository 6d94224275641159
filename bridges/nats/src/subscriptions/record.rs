//! The record of a subscription beside the stream, and the consumers that follow from it.

use eventbroker::Pattern;
use eventbroker::provider::BackendError;
use serde::{Deserialize, Serialize};

use crate::jetstream::{Consumer, KeyValue, Layout, Result, names};

/// The record of a subscription.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct SubscriptionRecord {
    pub(crate) group: String,
    pub(crate) name: String,
    pub(crate) pattern: String,
    /// The instance of a broadcast subscription.
    pub(crate) instance: String,
    /// Whether a broadcast subscription outlives its provider.
    #[serde(rename = "durable")]
    pub(crate) is_durable: bool,
    /// The provider that a subscription ends with.
    pub(crate) owner: String,
    /// The creation time of the stream that the numbers here refer to.
    pub(crate) stream_made: String,
    /// The last message before the subscription was made.
    pub(crate) after: u64,
    /// The first message for the subscription.
    pub(crate) start: u64,
    /// The generation of its consumers: earlier versions made new consumers for a changed pattern.
    pub(crate) changes: u32,
    /// The first message that the pattern counts for.
    pub(crate) since: u64,
    /// The patterns before, while messages that they count for are open.
    pub(crate) earlier: Vec<EarlierPattern>,
}

/// A pattern that a subscription had before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EarlierPattern {
    /// The generation of its consumers.
    pub(crate) changes: u32,
    pub(crate) pattern: String,
    pub(crate) since: u64,
    /// The last message that it counts for.
    pub(crate) until: u64,
    /// Read by nobody. Earlier versions of the bridge parse no record without it.
    pub(crate) start: u64,
}

impl SubscriptionRecord {
    /// The consumers: first the one of requeues, then one per partition.
    pub(crate) fn consumers(&self, layout: &Layout, kv: &KeyValue, durable: &str) -> Vec<Consumer> {
        let same = self.earlier.iter().filter(|it| it.changes == self.changes).map(|it| (it.until, &it.pattern));
        let patterns = same.chain([(u64::MAX, &self.pattern)]);
        let patterns: Vec<(u64, Pattern)> =
            patterns.filter_map(|(until, text)| Some((until, Pattern::parse(text).ok()?))).collect();
        let requeues = kv.requeues(durable);
        let again = Consumer {
            durable: durable.to_owned(),
            is_requeue: true,
            stream: kv.stream.clone(),
            name: durable.to_owned(),
            patterns: Vec::new(),
            partition: None,
            filters: vec![requeues.clone()],
            widest: requeues,
            start: 1,
            id: format!("{}/{durable}", kv.stream).into(),
        };
        let of_partition = |partition: Option<u32>| {
            let (prefix, name) =
                (names::partition(&layout.prefix, partition), names::consumer(durable, partition, self.changes));
            let widest = format!("{prefix}.>");
            let filters = patterns.iter().map(|(_, pattern)| names::filter(&prefix, pattern));
            Consumer {
                is_requeue: false,
                stream: layout.stream.clone(),
                filters: names::union(filters, &widest),
                patterns: patterns.clone(),
                partition,
                widest,
                start: self.start,
                id: format!("{}/{name}", layout.stream).into(),
                name,
                ..again.clone()
            }
        };
        let of_events: Vec<Consumer> = layout.all_partitions().into_iter().map(of_partition).collect();
        [again].into_iter().chain(of_events).collect()
    }

    /// The consumers of events, without the one of requeues.
    pub(crate) fn event_consumers(&self, layout: &Layout, kv: &KeyValue, durable: &str) -> Vec<Consumer> {
        self.consumers(layout, kv, durable).split_off(1)
    }

    /// The consumers of all generations.
    pub(crate) fn all_consumers(&self, layout: &Layout, kv: &KeyValue, durable: &str) -> Vec<Consumer> {
        let generations = self.earlier.iter().map(|it| it.changes).filter(|it| *it != self.changes);
        let earlier = generations.map(|changes| Self { changes, ..self.clone() });
        let earlier = earlier.flat_map(|record| record.event_consumers(layout, kv, durable));
        self.consumers(layout, kv, durable).into_iter().chain(earlier).collect()
    }

    /// Refuses a subscription with consumers of an earlier generation. That version of the bridge drops them when their messages are handled.
    pub(crate) fn check_generation(&self) -> Result<()> {
        let Self { name, earlier, changes, .. } = self;
        match earlier.iter().find(|it| it.changes != *changes) {
            Some(EarlierPattern { pattern, .. }) => Err(BackendError::Refused(format!(
                "the subscription {name:?} has messages for its earlier pattern {pattern}, in consumers of an earlier version of this bridge: \
                 run that version until they are handled, or remove the subscription"
            ))),
            None => Ok(()),
        }
    }

    /// The record in the stream of a creation time: no message of another stream was seen.
    pub(super) fn in_stream(self, created_at: &str) -> Self {
        if self.stream_made == created_at {
            return self;
        }
        Self { stream_made: created_at.to_owned(), after: 0, start: 1, since: 0, earlier: Vec::new(), ..self }
    }

    /// Sets the pattern that counts for the messages behind `until`.
    pub(super) fn change_pattern(&mut self, pattern: String, until: u64) {
        let Self { changes, since, start, .. } = *self;
        let pattern = std::mem::replace(&mut self.pattern, pattern);
        self.earlier.push(EarlierPattern { changes, pattern, since, until, start });
        self.since = until + 1;
    }

    /// The pattern that counts for a message.
    pub(crate) fn pattern_at(&self, sequence: u64) -> Option<&str> {
        if sequence >= self.since {
            return Some(&self.pattern);
        }
        let counts = |it: &&EarlierPattern| it.since <= sequence && sequence <= it.until;
        self.earlier.iter().find(counts).map(|it| it.pattern.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::Nats;

    /// A record with these earlier patterns, each with the last message that it counts for, and the event consumer.
    fn subscription(earlier: &[(&str, u64)], pattern: &str) -> (SubscriptionRecord, Consumer) {
        let settings = Nats::new("nats://localhost");
        let (layout, kv) = (Layout::new(&settings), KeyValue::new(&settings));
        let mut patterns = earlier.iter().map(|(text, _)| *text).chain([pattern]);
        let first = patterns.next().unwrap_or_default().to_owned();
        let mut record = SubscriptionRecord { pattern: first, ..SubscriptionRecord::default() };
        for (pattern, (_, until)) in patterns.zip(earlier) {
            record.change_pattern(pattern.to_owned(), *until);
        }
        let consumer = record.event_consumers(&layout, &kv, "workers==all").remove(0);
        (record, consumer)
    }

    #[test]
    fn each_message_has_the_pattern_of_its_time() {
        let (record, consumer) = subscription(&[("a.*", 10), ("b.*", 20)], "c.*");
        for (sequence, pattern) in [(1, "a.*"), (10, "a.*"), (11, "b.*"), (20, "b.*"), (21, "c.*")] {
            assert_eq!(record.pattern_at(sequence), Some(pattern), "{sequence}");
            assert_eq!(consumer.pattern_at(sequence).map(|(_, it)| it.as_str()), Some(pattern), "{sequence}");
        }
        assert_eq!(consumer.filters, ["events.*.a.*", "events.*.b.*", "events.*.c.*"]);
    }

    #[test]
    fn a_changed_pattern_keeps_the_consumer() {
        let ((_, before), (_, after)) = (subscription(&[], "a.*"), subscription(&[("a.*", 10)], "a.b"));
        assert_eq!((before.id, before.start), (after.id, after.start));
        assert_eq!(after.filters, ["events.*.a.*"], "the wider filter covers both");
    }

    #[test]
    fn consumers_of_another_generation_are_refused() {
        let (mut record, _) = subscription(&[("a.*", 10)], "b.*");
        assert!(record.check_generation().is_ok());
        record.changes = 1;
        let error = record.check_generation().expect_err("the earlier pattern has a consumer of its own");
        assert!(error.to_string().contains("earlier pattern a.*"), "{error}");
    }

    #[test]
    fn the_record_has_its_stored_form() {
        let (mut record, _) = subscription(&[("a.*", 10)], "b.*");
        (record.group, record.name, record.is_durable) = ("workers".to_owned(), "all".to_owned(), true);
        let stored = concat!(
            r#"{"group":"workers","name":"all","pattern":"b.*","instance":"","durable":true,"owner":"","stream_made":"","#,
            r#""after":0,"start":0,"changes":0,"since":11,"#,
            r#""earlier":[{"changes":0,"pattern":"a.*","since":0,"until":10,"start":0}]}"#
        );
        assert_eq!(serde_json::to_string(&record).expect("it is JSON"), stored);
        assert_eq!(serde_json::from_str::<SubscriptionRecord>(stored).expect("it is a record"), record);
    }
}
