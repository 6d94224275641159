//! EXPERIMENT: a client for publishing alone, whose runtime the mirror thread drives itself, so no thread has to be woken in between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::{Client, Message, Subject, Subscriber};
use eventbroker::provider::{BackendError, BusyPoll};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::runtime::{Builder, Runtime as Tokio};
use tokio::sync::Notify;
use tokio::task::{unconstrained, yield_now};
use tokio::time::{sleep_until, timeout};

use super::address::Address;
use super::client;
use super::incoming::Incoming;
use super::publish_conn::{ANSWER_LIMIT, CALL_LIMIT, LOST, Outgoing, PART, Put, is_too_large, outgoing};

/// A connection that was unused for longer is driven until the client has read what arrived.
const UNSURE_AFTER: Duration = Duration::from_secs(1);

pub(super) struct Inline {
    runtime: Option<Tokio>,
    client: Client,
    answers: Subscriber,
    inbox: String,
    next: u64,
    poll: BusyPoll,
    lost: Arc<Notify>,
    last_use: Instant,
}

impl Inline {
    pub(super) fn open(address: &Address) -> Result<Self, String> {
        let made = Builder::new_current_thread().enable_all().thread_keep_alive(Duration::ZERO).build();
        let runtime = made.map_err(|error| format!("{}: no runtime: {error}", address.place))?;
        let lost = Arc::new(Notify::new());
        let connected = runtime.block_on(async {
            let (on_loss, was_connected) = (Arc::clone(&lost), Arc::new(AtomicBool::new(false)));
            let connected = Arc::clone(&was_connected);
            let is_first = move || !connected.load(Ordering::SeqCst);
            let options = client::options(address, is_first, move || on_loss.notify_one())?;
            let client = client::connect(address, options).await?;
            was_connected.store(true, Ordering::SeqCst);
            let inbox = client.new_inbox();
            let answers = client.subscribe(format!("{inbox}.*")).await;
            Ok::<_, String>((client, inbox, answers.map_err(|error| format!("{}: {error}", address.place))?))
        });
        match connected {
            Ok((client, inbox, answers)) => {
                let (runtime, poll, last_use) = (Some(runtime), BusyPoll::default(), Instant::now());
                Ok(Self { runtime, client, answers, inbox, next: 0, poll, lost, last_use })
            }
            Err(error) => {
                runtime.shutdown_background();
                Err(error)
            }
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        if self.last_use.elapsed() > UNSURE_AFTER
            && let Some(runtime) = &self.runtime
        {
            runtime.block_on(async {
                for _ in 0..4 {
                    yield_now().await;
                }
            });
        }
        self.client.connection_state() == State::Connected
    }

    /// The outer error is one of the connection, the inner one a refusal of the server.
    pub(super) fn publish<M, A>(
        &mut self,
        messages: &[M],
        write: impl Fn(&M, Put<'_>),
        read: impl Fn(Result<Incoming, usize>) -> Result<A, BackendError>,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Result<Vec<A>, BackendError>, String> {
        let Self { runtime: Some(runtime), client, answers, inbox, next, poll, lost, .. } = self else {
            return Err(LOST.to_owned());
        };
        let began = *next;
        *next += messages.len() as u64;
        let deadline = Instant::now() + CALL_LIMIT;
        let mut left = messages.len();
        runtime.block_on(unconstrained(async {
            let mut number = began;
            for (at, part) in messages.chunks(PART).enumerate() {
                if at > 0 {
                    // The client sends the last part.
                    yield_now().await;
                }
                for message in part {
                    let (subject, headers, payload): Outgoing = outgoing(message, &write);
                    let reply = Subject::from(format!("{inbox}.{number}"));
                    number += 1;
                    match client.publish_with_reply_and_headers(subject, reply, headers, payload).await {
                        Ok(()) => {}
                        Err(error) if is_too_large(&error) => left -= 1,
                        Err(_) => return Err(LOST.to_owned()),
                    }
                }
            }
            match timeout(ANSWER_LIMIT, client.flush()).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(LOST.to_owned()),
                Err(_) => Err("no answer".to_owned()),
            }
        }))?;
        let sent = Instant::now();
        meanwhile();
        let poll_until = poll.limit(messages.len()).map(|limit| Instant::now() + limit);
        let mut found: Vec<Option<Message>> = vec![None; messages.len()];
        runtime.block_on(unconstrained(async {
            while left > 0 {
                let message = match answers.next().now_or_never() {
                    Some(message) => message,
                    None if poll_until.is_some_and(|until| Instant::now() < until) => {
                        thread::yield_now();
                        yield_now().await;
                        continue;
                    }
                    None => {
                        let until = deadline.min(Instant::now() + ANSWER_LIMIT);
                        tokio::select! {
                            biased;
                            message = answers.next() => message,
                            () = lost.notified() => None,
                            () = sleep_until(until.into()) => return Err("no answer".to_owned()),
                        }
                    }
                };
                let message = message.ok_or_else(|| LOST.to_owned())?;
                let number = message.subject.as_str().get(inbox.len() + 1..).and_then(|it| it.parse::<u64>().ok());
                let at = number.and_then(|number| usize::try_from(number.checked_sub(began)?).ok());
                if let Some(place) = at.and_then(|at| found.get_mut(at)).filter(|it| it.is_none()) {
                    *place = Some(message);
                    left -= 1;
                }
            }
            Ok(())
        }))?;
        poll.answered(messages.len(), sent.elapsed());
        let limit = client.max_payload();
        self.last_use = Instant::now();
        Ok(found.into_iter().map(|answer| read(answer.map(Incoming::from).ok_or(limit))).collect())
    }
}

impl Drop for Inline {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl std::fmt::Debug for Inline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inline").finish_non_exhaustive()
    }
}
