//! The patterns of a subscription, now and earlier: an entry is matched with the pattern of the time at which it was stored.

use std::fmt;

use eventbroker::Pattern;
use eventbroker::provider::BackendError;

use super::SubscriptionRecord;
use crate::scripts::id_parts;

/// The patterns of a subscription, as of the record that was read last.
#[derive(Debug, Default)]
pub(crate) struct PatternHistory {
    record: Vec<u8>,
    pattern: Option<Pattern>,
    /// Earlier patterns, each for the entries up to these.
    earlier: Vec<(Vec<String>, Pattern)>,
}

impl PatternHistory {
    /// Takes the patterns of a record. Fails without a record and with one that can't be parsed, because then every entry would count as
    /// not matching and be acknowledged.
    pub(crate) fn update(&mut self, record: Vec<u8>) -> Result<(), BackendError> {
        if record.is_empty() {
            return Err(BackendError::Unavailable("NOGROUP the subscription is not known".to_owned()));
        }
        if record == self.record {
            return Ok(());
        }
        let damaged = |error: &dyn fmt::Display| {
            BackendError::Unavailable(format!("the record of a subscription is damaged: {error}"))
        };
        let parsed: SubscriptionRecord = serde_json::from_slice(&record).map_err(|error| damaged(&error))?;
        let parse = |pattern: &str| Pattern::parse(pattern).map_err(|error| damaged(&error));
        let mut earlier = Vec::new();
        for it in parsed.patterns {
            earlier.push((it.until_entries, parse(&it.pattern)?));
        }
        *self = Self { pattern: Some(parse(&parsed.pattern)?), earlier, record };
        Ok(())
    }

    /// Whether an entry of the stream of that number is for the subscription.
    pub(crate) fn matches(&self, number: usize, entry: &str, event_type: &[u8]) -> bool {
        let is_until = |until: &Vec<String>| until.get(number - 1).is_some_and(|it| id_parts(entry) <= id_parts(it));
        let earlier = self.earlier.iter().find(|(until, _)| is_until(until)).map(|(_, pattern)| pattern);
        let (pattern, event_type) = (earlier.or(self.pattern.as_ref()), str::from_utf8(event_type));
        pattern.zip(event_type.ok()).is_some_and(|(pattern, event_type)| pattern.matches(event_type))
    }
}
