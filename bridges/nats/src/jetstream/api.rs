//! Requests of the JetStream API, and the errors of the bridge.

use std::fmt::Display;
use std::time::Duration;

use eventbroker::provider::BackendError;
use serde::Deserialize;
use serde_json::Value;

use crate::transport::Session;

pub(crate) const STREAM_NOT_FOUND: u64 = 10_059;
pub(crate) const CONSUMER_NOT_FOUND: u64 = 10_014;
/// The status of a request that no subscriber received.
pub(super) const NO_RESPONDERS: u16 = 503;

/// A result whose error goes to the broker.
pub(crate) type Result<T, E = BackendError> = std::result::Result<T, E>;

/// A refusal of the API.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct ApiError {
    #[serde(default, rename = "err_code")]
    pub(crate) code: u64,
    #[serde(default, rename = "description")]
    pub(crate) text: String,
}

impl ApiError {
    /// Whether the stream or the consumer of the request does not exist.
    pub(crate) fn is_not_found(&self) -> bool {
        [CONSUMER_NOT_FOUND, STREAM_NOT_FOUND].contains(&self.code)
    }
}

impl From<ApiError> for BackendError {
    fn from(error: ApiError) -> Self {
        Self::Unavailable(format!("NATS: {} ({})", error.text, error.code))
    }
}

/// A failure that a later try may mend.
pub(crate) fn unavailable(error: impl Display) -> BackendError {
    BackendError::Unavailable(format!("NATS: {error}"))
}

/// The error of work that the end of its session has cut off.
pub(crate) fn cut_off() -> BackendError {
    unavailable("the connection was lost")
}

/// Sends a request of the API and returns the answer.
pub(crate) async fn api(session: &Session, verb: &str, request: &Value) -> Result<Result<Value, ApiError>> {
    let payload = if request.is_null() { String::new() } else { request.to_string() };
    let answer = session.request(&format!("$JS.API.{verb}"), payload.as_bytes());
    session.flush().map_err(unavailable)?;
    let answer = Session::in_time(answer).await.ok_or_else(|| unavailable("no answer in time"))?;
    let answer = answer.map_err(|_| cut_off())?;
    if answer.headers.status() == Some(NO_RESPONDERS) {
        return Err(unavailable("JetStream is not enabled on the server"));
    }
    let mut answer: Value = serde_json::from_slice(&answer.payload).map_err(unavailable)?;
    Ok(match answer.get_mut("error").map(Value::take) {
        Some(error) => Err(ApiError {
            code: error["err_code"].as_u64().unwrap_or(0),
            text: error["description"].as_str().unwrap_or("refused").to_owned(),
        }),
        None => Ok(answer),
    })
}

/// A duration of the API.
pub(crate) fn nanos(time: Duration) -> u64 {
    time.as_nanos().try_into().unwrap_or(i64::MAX as u64)
}
