//! The answers to the events of a batch: one subscription, whose task collects them where the client hands them over, and wakes the mirror thread
//! once, when all are there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use async_nats::{Client, Message, Subject, SubscribeError};
use futures_util::{FutureExt as _, StreamExt as _};
use parking_lot::{Condvar, Mutex};
use tokio::task::unconstrained;

use super::publish_conn::ANSWER_LIMIT;
use super::session::Session;

/// The collected answers.
pub(super) struct PublishAnswers {
    inbox: String,
    state: Mutex<State>,
    changed: Condvar,
    /// All answers are there, or the session has ended.
    is_done: AtomicBool,
}

struct State {
    /// The number of the batch's first message; the reply subjects are the inbox and the number of the message.
    began: u64,
    left: usize,
    answers: Vec<Option<Message>>,
    last: Instant,
    is_lost: bool,
}

/// Tells at the end of the task that no answer follows.
struct Ending(Arc<PublishAnswers>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.state.lock().is_lost = true;
        self.0.is_done.store(true, Ordering::Release);
        self.0.changed.notify_all();
    }
}

impl PublishAnswers {
    pub(super) async fn start(client: &Client) -> Result<Arc<Self>, SubscribeError> {
        let inbox = client.new_inbox();
        let mut subscriber = client.subscribe(format!("{inbox}.*")).await?;
        let state = State { began: 0, left: 0, answers: Vec::new(), last: Instant::now(), is_lost: false };
        let is_done = AtomicBool::new(false);
        let collected = Arc::new(Self { inbox, state: Mutex::new(state), changed: Condvar::new(), is_done });
        let ending = Ending(Arc::clone(&collected));
        Session::spawn(unconstrained(async move {
            let Ending(collected) = &ending;
            while let Some(first) = subscriber.next().await {
                let mut state = collected.state.lock();
                collected.take(&mut state, first);
                while let Some(Some(message)) = subscriber.next().now_or_never() {
                    collected.take(&mut state, message);
                }
                state.last = Instant::now();
                if state.left == 0 && !collected.is_done.swap(true, Ordering::AcqRel) {
                    drop(state);
                    collected.changed.notify_one();
                }
            }
        }));
        Ok(collected)
    }

    fn take(&self, state: &mut State, message: Message) {
        let number = message.subject.as_str().get(self.inbox.len() + 1..).and_then(|it| it.parse::<u64>().ok());
        let at = number.and_then(|number| number.checked_sub(state.began));
        let place = at.and_then(|at| state.answers.get_mut(usize::try_from(at).ok()?)).filter(|it| it.is_none());
        if let Some(place) = place {
            *place = Some(message);
            state.left -= 1;
        }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.state.lock().is_lost
    }

    /// Begins a batch of messages, and returns the number of the first.
    pub(super) fn begin(&self, count: usize) -> u64 {
        let mut state = self.state.lock();
        state.began += state.answers.len() as u64;
        (state.left, state.answers) = (count, vec![None; count]);
        self.is_done.store(count == 0 || state.is_lost, Ordering::Release);
        state.began
    }

    /// The reply subject of a message.
    pub(super) fn reply(&self, number: u64) -> Subject {
        Subject::from(format!("{}.{number}", self.inbox))
    }

    /// One message of the batch was not sent.
    pub(super) fn skip(&self) {
        let mut state = self.state.lock();
        state.left -= 1;
        if state.left == 0 {
            self.is_done.store(true, Ordering::Release);
        }
    }

    /// Waits for the answers to the batch; `None` stands for a message that was not sent. Polls until `poll_until` before it sleeps.
    pub(super) fn wait(
        &self,
        poll_until: Option<Instant>,
        sent: Instant,
        deadline: Instant,
    ) -> Result<Vec<Option<Message>>, String> {
        if let Some(until) = poll_until {
            while !self.is_done.load(Ordering::Acquire) && Instant::now() < until {
                thread::yield_now();
            }
        }
        let mut state = self.state.lock();
        loop {
            if state.left == 0 {
                let count = state.answers.len();
                state.began += count as u64;
                return Ok(std::mem::take(&mut state.answers));
            }
            if state.is_lost {
                return Err("the connection was lost".to_owned());
            }
            let until = deadline.min(sent.max(state.last) + ANSWER_LIMIT);
            if Instant::now() >= until {
                return Err("no answer".to_owned());
            }
            self.changed.wait_until(&mut state, until);
        }
    }
}
