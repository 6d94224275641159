//! How far consumers have come, as the server tells.

use eventbroker::provider::BackendError;
use futures_util::future::join_all;
use serde_json::Value;

use crate::jetstream::message::{self as js, CONSUMER_NOT_FOUND, STREAM_NOT_FOUND};
use crate::subscriptions::Leg;
use crate::transport::runtime::Session;

/// How far a consumer has come.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Progress {
    /// The last message that was delivered.
    pub(crate) delivered: u64,
    /// How many deliveries there were, those that were made again too.
    pub(crate) deliveries: u64,
    /// Everything up to here was acknowledged.
    pub(crate) floor: u64,
    /// How many were delivered and not acknowledged.
    pub(crate) open: u64,
    /// How many were not delivered.
    pub(crate) waiting: u64,
}

impl Progress {
    /// Whether a message may still be on its way to being handled. What lies behind one that is open counts as open as well.
    pub(crate) fn is_open(&self, sequence: u64) -> bool {
        sequence > self.delivered || (self.open > 0 && sequence > self.floor)
    }

    /// Whether nothing is left of what was stored up to a message.
    pub(crate) fn has_ended(&self, until: u64) -> bool {
        let is_read = self.delivered >= until || self.waiting == 0;
        is_read && (self.open == 0 || self.floor >= until)
    }

    pub(crate) fn has_begun(&self, sequence: u64) -> bool {
        sequence <= self.delivered
    }
}

/// How far consumers have come; the default for one that is not there.
pub(crate) async fn progress(session: &Session, legs: &[Leg]) -> Result<Vec<Option<Progress>>, BackendError> {
    let ask = |leg: &Leg| {
        let verb = format!("CONSUMER.INFO.{}.{}", leg.stream, leg.consumer);
        async move { js::api(session, &verb, &Value::Null).await }
    };
    let answers = join_all(legs.iter().map(ask)).await;
    let read = |answer: Result<Result<Value, js::ApiError>, BackendError>| {
        let info = match answer? {
            Ok(info) => info,
            Err(error) if [CONSUMER_NOT_FOUND, STREAM_NOT_FOUND].contains(&error.code) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let number = |value: &Value| value.as_u64().unwrap_or(0);
        // What lies before the beginning was never open, which the server does not say as long as nothing is acknowledged.
        let before = number(&info["config"]["opt_start_seq"]).saturating_sub(1);
        Ok(Some(Progress {
            delivered: number(&info["delivered"]["stream_seq"]),
            deliveries: number(&info["delivered"]["consumer_seq"]),
            floor: number(&info["ack_floor"]["stream_seq"]).max(before),
            open: number(&info["num_ack_pending"]),
            waiting: number(&info["num_pending"]),
        }))
    };
    answers.into_iter().map(read).collect()
}
