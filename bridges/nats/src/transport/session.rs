//! A session with the server: the client of one connect, from its start to its loss.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::{Client, HeaderMap, Message, Subject};
use bytes::Bytes;
use eventbroker::provider::BackendError;
use tokio::sync::Notify;

use super::consume_conn::ConsumeConn;
use super::publish_answers::PublishAnswers;
use super::request_mux::RequestMux;
use super::runtime::CALL_LIMIT;

/// A session with the server. All work of a session ends with it.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) conn: Arc<ConsumeConn>,
    pub(super) mux: Arc<RequestMux>,
    pub(super) published: Arc<PublishAnswers>,
    /// The number of the session.
    pub(crate) generation: u64,
    pub(super) broken: Arc<Notify>,
    /// Several servers keep the streams.
    pub(crate) is_replicated: Arc<AtomicBool>,
}

/// A request: its subject, its headers if it has some, and its body.
pub(crate) type Request = (Subject, Option<HeaderMap>, Bytes);

impl Session {
    /// Sends requests one behind the other and waits for their answers, which are returned in the order of the requests. `None` stands for a
    /// request that is larger than the server's limit. An answer that does not come within the limit of a call ends the session if
    /// `silence_is_fatal`.
    pub(crate) async fn ask_all(
        &self,
        requests: impl IntoIterator<Item = Request>,
        silence_is_fatal: bool,
    ) -> Result<Vec<Option<Message>>, BackendError> {
        let mut answers = self.mux.begin();
        let (mut found, mut open) = (Vec::new(), 0);
        for (number, (subject, headers, payload)) in requests.into_iter().enumerate() {
            let reply = answers.reply(number);
            let sent = match headers {
                Some(headers) => self.client.publish_with_reply_and_headers(subject, reply, headers, payload).await,
                None => self.client.publish_with_reply(subject, reply, payload).await,
            };
            found.push(None);
            match sent {
                Ok(()) => open += 1,
                Err(error) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {}
                Err(error) => return Err(BackendError::Unavailable(format!("NATS: {error}"))),
            }
        }
        for _ in 0..open {
            let answer = Self::within(CALL_LIMIT, answers.next()).await;
            if answer.is_none() && silence_is_fatal {
                self.give_up("a request was not answered");
            }
            let answer = answer.ok_or_else(|| BackendError::Unavailable("NATS: no answer in time".to_owned()))?;
            let (number, message) =
                answer.ok_or_else(|| BackendError::Unavailable("NATS: the connection was lost".to_owned()))?;
            found[number] = Some(message);
        }
        Ok(found)
    }

    /// Runs work beside the calls, until its end or that of the session.
    pub(crate) fn spawn(work: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(work);
    }

    /// Ends the session.
    pub(crate) fn give_up(&self, why: &str) {
        tracing::debug!(why, "a session with NATS is given up");
        self.broken.notify_one();
    }

    /// The result of work within the limit of a call; `None` if it takes longer.
    pub(crate) async fn in_time<T>(work: impl Future<Output = T>) -> Option<T> {
        Self::within(CALL_LIMIT, work).await
    }

    /// The result of work within a time; `None` if it takes longer.
    pub(crate) async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(time, work).await.ok()
    }

    /// Sleeps.
    pub(crate) async fn pause(time: Duration) {
        tokio::time::sleep(time).await;
    }
}
