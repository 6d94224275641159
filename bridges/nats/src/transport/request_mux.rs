//! Many requests at a time over one subscription: the reply subject of a request holds the number of its call and its own, and the mux hands each
//! answer to its call.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_nats::{Client, Message, Subject, SubscribeError};
use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures_util::StreamExt as _;
use parking_lot::Mutex;

use super::session::Session;

/// The number of a request, and its answer.
type NumberedAnswer = (usize, Message);

/// The subscription that all answers arrive on.
pub(super) struct RequestMux {
    inbox: String,
    next: AtomicU64,
    calls: Mutex<HashMap<u64, UnboundedSender<NumberedAnswer>>>,
}

/// The answers to one call. Later ones are dropped with it.
pub(super) struct Answers {
    mux: Arc<RequestMux>,
    call: u64,
    receiver: UnboundedReceiver<NumberedAnswer>,
}

impl RequestMux {
    pub(super) async fn start(client: &Client) -> Result<Arc<Self>, SubscribeError> {
        let inbox = client.new_inbox();
        let mut subscriber = client.subscribe(format!("{inbox}.*.*")).await?;
        let mux = Arc::new(Self { inbox, next: AtomicU64::new(0), calls: Mutex::default() });
        let weak = Arc::downgrade(&mux);
        Session::spawn(async move {
            while let Some(message) = subscriber.next().await {
                let Some(mux) = weak.upgrade() else { return };
                mux.hand_over(message);
            }
        });
        Ok(mux)
    }

    pub(super) fn begin_call(self: &Arc<Self>) -> Answers {
        let (sender, receiver) = unbounded();
        let call = self.next.fetch_add(1, Ordering::Relaxed);
        self.calls.lock().insert(call, sender);
        Answers { mux: Arc::clone(self), call, receiver }
    }

    fn hand_over(&self, message: Message) {
        let numbers = message.subject.as_str().get(self.inbox.len() + 1..).and_then(|rest| rest.split_once('.'));
        let Some((call, number)) = numbers else { return };
        let (Ok(call), Ok(number)) = (call.parse::<u64>(), number.parse()) else { return };
        if let Some(sender) = self.calls.lock().get(&call) {
            // The call may just have ended.
            let _ = sender.unbounded_send((number, message));
        }
    }
}

impl Answers {
    /// The reply subject of a request.
    pub(super) fn reply(&self, number: usize) -> Subject {
        Subject::from(format!("{}.{}.{number}", self.mux.inbox, self.call))
    }

    pub(super) async fn next(&mut self) -> Option<NumberedAnswer> {
        self.receiver.next().await
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.mux.calls.lock().remove(&self.call);
    }
}
