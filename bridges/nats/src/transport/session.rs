//! A session with the server: the client and the consume connection of one connect, from their start to the loss of either.

use std::fmt::Display;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_nats::client::PublishErrorKind;
use async_nats::{Client, HeaderMap, Message, Subject, Subscriber};
use bytes::Bytes;
use eventbroker::provider::BackendError;
use futures_channel::oneshot;
use tokio::sync::Notify;

use super::consume_conn::{ConsumeConn, PullInbox};
use super::frame::Incoming;
use super::request_mux::RequestMux;
use super::runtime::CALL_LIMIT;

/// A session with the server. All work of a session ends with it.
#[derive(Clone)]
pub(crate) struct Session {
    /// The connection of requests that come in no order with the deliveries.
    pub(super) client: Client,
    /// The connection of deliveries, and of all that has to keep its order with them.
    pub(super) conn: Arc<ConsumeConn>,
    pub(super) mux: Arc<RequestMux>,
    /// The number of the session.
    pub(crate) generation: u64,
    pub(super) broken: Arc<Notify>,
    /// Several servers keep the streams.
    pub(super) is_replicated: Arc<AtomicBool>,
}

/// A request: its subject, its headers if it has some, and its body.
pub(crate) type Request = (Subject, Option<HeaderMap>, Bytes);

fn unavailable(error: impl Display) -> BackendError {
    BackendError::Unavailable(format!("NATS: {error}"))
}

impl Session {
    /// Sends requests one behind the other and waits for their answers, which are returned in the order of the requests. `None` stands for a
    /// request that is larger than the server's limit. An answer that does not come within the limit of a call ends the session if
    /// `silence_is_fatal`.
    pub(crate) async fn ask_all(
        &self,
        requests: impl IntoIterator<Item = Request>,
        silence_is_fatal: bool,
    ) -> Result<Vec<Option<Message>>, BackendError> {
        let mut answers = self.mux.begin_call();
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
                Err(error) => return Err(unavailable(error)),
            }
        }
        for _ in 0..open {
            let answer = Self::within(CALL_LIMIT, answers.next()).await;
            if answer.is_none() && silence_is_fatal {
                self.give_up("a request was not answered");
            }
            let answer = answer.ok_or_else(|| unavailable("no answer in time"))?;
            let (number, message) = answer.ok_or_else(|| unavailable("the connection was lost"))?;
            found[number] = Some(message);
        }
        Ok(found)
    }

    /// Sends a request over the client, and subscribes to its answers, of which there may be many.
    pub(crate) async fn request_many(&self, subject: String, payload: Bytes) -> Result<Subscriber, BackendError> {
        let inbox = self.client.new_inbox();
        let answers = self.client.subscribe(inbox.clone()).await.map_err(unavailable)?;
        self.client.publish_with_reply(subject, inbox, payload).await.map_err(unavailable)?;
        Ok(answers)
    }

    /// Sends a request over the client whose answer nobody needs. It may be lost with the connection.
    pub(crate) async fn request_unanswered(&self, subject: String) {
        let _ = self.client.publish(subject, Bytes::new()).await;
    }

    /// The largest message that the server accepts.
    pub(crate) fn max_payload(&self) -> usize {
        self.client.max_payload()
    }

    pub(crate) fn new_inbox(&self) -> Subject {
        Subject::from(self.client.new_inbox())
    }

    /// Subscribes on the consume connection. `None` if that was lost.
    pub(crate) async fn subscribe(&self, inbox: &Subject) -> Option<PullInbox> {
        self.conn.subscribe(inbox).await
    }

    /// Writes a message to the consume connection. The next [`flush`](Self::flush) sends it.
    pub(crate) fn publish(&self, subject: &str, reply: &str, payload: &[u8]) {
        self.conn.publish(subject, reply, payload);
    }

    /// Writes a request to the consume connection. The answer may never come.
    pub(crate) fn request(&self, subject: &str, payload: &[u8]) -> oneshot::Receiver<Incoming> {
        self.conn.request(subject, payload)
    }

    /// Sends the written messages and requests.
    pub(crate) fn flush(&self) -> Result<(), String> {
        self.conn.send()
    }

    /// Whether several servers keep the streams, so that each is read at its leader.
    pub(crate) fn is_replicated(&self) -> bool {
        self.is_replicated.load(Ordering::SeqCst)
    }

    pub(crate) fn note_replicas(&self, replicas: u64) {
        if replicas > 1 {
            self.is_replicated.store(true, Ordering::SeqCst);
        }
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
