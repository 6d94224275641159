//! Consuming over the client's connection: pull requests, acknowledgements and API requests are put into the client's queue, which its task writes
//! together once the present task pauses; messages are taken from a subscription of the client, all that are there at a time.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_nats::{Client, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::sync::Notify;
use tokio::task::unconstrained;

use super::incoming::Incoming;
use super::request_mux::RequestMux;

/// The largest number of messages that a reader gets together.
const TOGETHER: usize = 256;

/// The consuming side of a session.
pub(crate) struct ConsumeConn {
    client: Client,
    mux: Arc<RequestMux>,
    /// A message was not taken: the client has ended, or its queue is full.
    has_failed: AtomicBool,
    /// Ends the session.
    broken: Arc<Notify>,
}

/// The inbox of a consumer's pull requests.
pub(crate) struct PullInbox(Subscriber);

impl ConsumeConn {
    pub(super) fn new(client: &Client, mux: &Arc<RequestMux>, broken: &Arc<Notify>) -> Arc<Self> {
        let (client, mux, broken) = (client.clone(), Arc::clone(mux), Arc::clone(broken));
        Arc::new(Self { client, mux, has_failed: AtomicBool::new(false), broken })
    }

    /// Puts a message into the client's queue. The next [`send`](Self::send) tells whether it took it.
    pub(crate) fn publish(&self, subject: Subject, reply: Option<Subject>, payload: Bytes) {
        // The queue has room for more than the bridge has in flight, so the call is complete at once; without a budget, which would make every
        // 128th call wait.
        let taken = match reply {
            Some(reply) => {
                unconstrained(self.client.publish_with_reply(subject, reply, payload)).now_or_never().map(|it| it.is_ok())
            }
            None => unconstrained(self.client.publish(subject, payload)).now_or_never().map(|it| it.is_ok()),
        };
        if taken != Some(true) {
            self.has_failed.store(true, Ordering::SeqCst);
            self.broken.notify_one();
        }
    }

    /// Whether the client has taken all messages. Its task sends them.
    pub(crate) fn send(&self) -> Result<(), String> {
        match self.has_failed.load(Ordering::SeqCst) {
            true => Err("the connection was lost".to_owned()),
            false => Ok(()),
        }
    }

    /// Puts a request into the client's queue. The answer may never come.
    pub(crate) fn request(&self, subject: Subject, payload: Bytes) -> impl Future<Output = Option<Incoming>> + Send + use<> {
        let mut answers = self.mux.begin();
        self.publish(subject, Some(answers.reply(0)), payload);
        async move { answers.next().await.map(|(_, message)| message.into()) }
    }

    /// Subscribes to a subject. `None` if the connection was lost. What is sent later reaches the server behind it.
    pub(crate) async fn subscribe(&self, subject: &Subject) -> Option<PullInbox> {
        self.client.subscribe(subject.clone()).await.ok().map(PullInbox)
    }
}

impl PullInbox {
    /// The next messages that have arrived. `None` at the end of the subscription or the connection.
    pub(crate) async fn next(&mut self) -> Option<Vec<Incoming>> {
        let mut together: Vec<Incoming> = vec![unconstrained(self.0.next()).await?.into()];
        while together.len() < TOGETHER
            && let Some(Some(more)) = unconstrained(self.0.next()).now_or_never()
        {
            together.push(more.into());
        }
        Some(together)
    }

    /// Unsubscribes. Messages in transit still arrive, as far as the client waits for them.
    pub(crate) fn end(&mut self) {
        // A lost connection ends the subscription too.
        let _ = unconstrained(self.0.drain()).now_or_never();
    }
}

impl fmt::Debug for ConsumeConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumeConn").finish_non_exhaustive()
    }
}
