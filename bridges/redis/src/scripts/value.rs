//! Replies as Rust values, and values as arguments.

use std::time::{Duration, SystemTime};

use eventbroker::provider::BackendError;
use redis::Value;

/// The error for a reply of another form than the script or command documents.
pub(crate) fn unexpected(value: &Value) -> BackendError {
    BackendError::Unavailable(format!("Redis: unexpected reply: {value:?}"))
}

pub(crate) fn list(value: Value) -> Result<Vec<Value>, BackendError> {
    match value {
        Value::Array(values) => Ok(values),
        Value::Nil => Ok(Vec::new()),
        other => Err(unexpected(&other)),
    }
}

/// A list of `N` values.
pub(crate) fn fixed<const N: usize>(value: Value) -> Result<[Value; N], BackendError> {
    list(value)?.try_into().map_err(|values| unexpected(&Value::Array(values)))
}

pub(crate) fn bytes(value: Value) -> Result<Vec<u8>, BackendError> {
    match value {
        Value::BulkString(bytes) => Ok(bytes),
        Value::SimpleString(text) => Ok(text.into_bytes()),
        Value::Int(number) => Ok(number.to_string().into_bytes()),
        other => Err(unexpected(&other)),
    }
}

pub(crate) fn text(value: Value) -> Result<String, BackendError> {
    String::from_utf8(bytes(value)?)
        .map_err(|error| BackendError::Unavailable(format!("Redis: a text is not UTF-8: {error}")))
}

pub(crate) fn number(value: Value) -> Result<i64, BackendError> {
    match value {
        Value::Int(number) => Ok(number),
        other => text(other)?.parse().map_err(|_| BackendError::Unavailable("Redis: a number is malformed".to_owned())),
    }
}

pub(crate) fn texts(value: Value) -> Result<Vec<String>, BackendError> {
    list(value)?.into_iter().map(text).collect()
}

/// A condition as scripts take it.
pub(crate) fn flag(it: bool) -> &'static str {
    if it { "1" } else { "0" }
}

/// Milliseconds as commands take them.
pub(crate) fn millis(time: Duration) -> String {
    time.as_millis().min(1 << 52).to_string()
}

/// The time since 1970.
pub(crate) fn since_epoch(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}
