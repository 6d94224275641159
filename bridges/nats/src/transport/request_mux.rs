//! Answers to many questions at once: one subscription of a connection takes them all, and hands each to whoever has asked. A call asks any
//! number of questions and gets their answers with the numbers of the questions, in the order in which they come.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::{Client, Message, Subject, SubscribeError};
use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures_util::StreamExt as _;
use parking_lot::Mutex;

use crate::transport::runtime::Session;

/// An answer, and the number of its question.
pub(crate) type Answer = (usize, Message);

/// Where answers come in.
pub(crate) struct Router {
    inbox: String,
    next: AtomicU64,
    calls: Mutex<HashMap<u64, UnboundedSender<Answer>>>,
}

/// The answers of one call. Nobody gets those that come after it has gone.
pub(crate) struct Answers {
    router: Arc<Router>,
    call: u64,
    receiver: UnboundedReceiver<Answer>,
}

impl Router {
    pub(crate) async fn start(client: &Client) -> Result<Arc<Self>, SubscribeError> {
        let inbox = client.new_inbox();
        let mut subscriber = client.subscribe(format!("{inbox}.*.*")).await?;
        let router = Arc::new(Self { inbox, next: AtomicU64::new(0), calls: Mutex::default() });
        let weak = Arc::downgrade(&router);
        Session::spawn(async move {
            while let Some(message) = subscriber.next().await {
                let Some(router) = weak.upgrade() else { return };
                router.hand_over(message);
            }
        });
        Ok(router)
    }

    pub(crate) fn call(self: &Arc<Self>) -> Answers {
        let (sender, receiver) = unbounded();
        let call = self.next.fetch_add(1, Ordering::Relaxed);
        self.calls.lock().insert(call, sender);
        Answers { router: Arc::clone(self), call, receiver }
    }

    fn hand_over(&self, message: Message) {
        let told = message.subject.as_str().get(self.inbox.len() + 1..).and_then(|rest| rest.split_once('.'));
        let Some((call, number)) = told else { return };
        let (Ok(call), Ok(number)) = (call.parse::<u64>(), number.parse()) else { return };
        if let Some(sender) = self.calls.lock().get(&call) {
            // Its call has just gone.
            let _ = sender.unbounded_send((number, message));
        }
    }
}

impl Answers {
    /// Where the answer to a question goes.
    pub(crate) fn address(&self, number: usize) -> Subject {
        Subject::from(format!("{}.{}.{number}", self.router.inbox, self.call))
    }

    pub(crate) async fn next(&mut self) -> Option<Answer> {
        self.receiver.next().await
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.router.calls.lock().remove(&self.call);
    }
}
