//! Publishing events over the client, for one thread at a time: a batch is put into the client's queue, and its answers are awaited together. After
//! a failure the session ends: what is left of a batch must not go out behind newer events.

use std::fmt;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use async_nats::client::{PublishError, PublishErrorKind};
use async_nats::{HeaderMap, Subject};
use bytes::Bytes;
use eventbroker::provider::{BackendError, Backoff, BusyPoll};

use super::address::Address;
use super::incoming::{Incoming, header_map};
use super::publish_inline::Inline;
use super::runtime::Runtime;
use super::session::Session;

/// How long the next answer may take, and all of them.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(2);
pub(super) const CALL_LIMIT: Duration = Duration::from_secs(10);
/// Messages that are made before they are put into the queue: the client's task is woken once for them, and sends them while the next are made.
pub(super) const PART: usize = 64;
pub(super) const LOST: &str = "the connection was lost";

/// Publishes events.
#[derive(Debug)]
pub(crate) struct PublishConn {
    address: Arc<Address>,
    backoff: Arc<Backoff>,
    way: Way,
}

/// EXPERIMENT: both ways are measured.
#[derive(Debug)]
enum Way {
    /// Over the client of the session, on the bridge thread.
    Session { session: Option<Session>, poll: BusyPoll },
    /// Over a client of its own, which the mirror thread drives itself.
    Inline(Option<Inline>),
}

/// Takes a message: its subject, its headers and its body.
pub(crate) type Put<'a> = &'a mut dyn FnMut(String, &[(&'static str, &str)], Vec<u8>);

/// A message to send, without its reply subject.
pub(super) type Outgoing = (Subject, HeaderMap, Bytes);

/// Makes a message to send.
pub(super) fn outgoing<M>(message: &M, write: impl Fn(&M, Put<'_>)) -> Outgoing {
    let mut made = None;
    write(message, &mut |subject, headers, payload| {
        made = Some((Subject::from(subject), header_map(headers), Bytes::from(payload)));
    });
    made.unwrap_or_else(|| (Subject::from_static(""), HeaderMap::new(), Bytes::new()))
}

impl PublishConn {
    pub(super) fn new(address: Arc<Address>, backoff: Arc<Backoff>) -> Self {
        let is_inline = std::env::var("EVENTBROKER_NATS_PUBLISH").is_ok_and(|it| it == "inline");
        let way =
            if is_inline { Way::Inline(None) } else { Way::Session { session: None, poll: BusyPoll::default() } };
        Self { address, backoff, way }
    }

    /// Publishes messages in their order, and returns their answers as `read` parses them. For a message larger than the server's limit `read` gets
    /// that limit in bytes. Waits at most 2 s for each answer and 10 s for all.
    pub(crate) fn publish<M, A: Clone>(
        &mut self,
        runtime: &Runtime,
        messages: &[M],
        write: impl Fn(&M, Put<'_>),
        read: impl Fn(Result<Incoming, usize>) -> Result<A, BackendError>,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Vec<A>, BackendError> {
        let published = match &mut self.way {
            Way::Session { session: kept, poll } => {
                let present = kept.take().filter(|it| it.generation == runtime.generation() && !it.published.is_lost());
                let session = match present {
                    Some(session) => session,
                    None => runtime.call(|session| async move { Ok(session) })?,
                };
                match publish(&session, poll, messages, write, read, meanwhile) {
                    Ok(answers) => {
                        *kept = Some(session);
                        Ok(answers)
                    }
                    Err(problem) => {
                        session.give_up("events were not confirmed");
                        Err(problem)
                    }
                }
            }
            Way::Inline(kept) => {
                let mut inline = match kept.take().filter(Inline::is_connected) {
                    Some(inline) => inline,
                    None => self.backoff.attempt(|| Inline::open(&self.address))?,
                };
                let published = inline.publish(messages, write, read, meanwhile);
                if published.is_ok() {
                    *kept = Some(inline);
                }
                published
            }
        };
        published.map_err(|problem| BackendError::Unavailable(format!("{}: {problem}", self.address.place)))?
    }
}

/// The outer error is one of the connection, the inner one a refusal of the server.
fn publish<M, A>(
    session: &Session,
    poll: &mut BusyPoll,
    messages: &[M],
    write: impl Fn(&M, Put<'_>),
    read: impl Fn(Result<Incoming, usize>) -> Result<A, BackendError>,
    meanwhile: &mut dyn FnMut(),
) -> Result<Result<Vec<A>, BackendError>, String> {
    let Session { client, published, .. } = session;
    let deadline = Instant::now() + CALL_LIMIT;
    let mut number = published.begin(messages.len());
    for part in messages.chunks(PART) {
        let made: Vec<Outgoing> = part.iter().map(|message| outgoing(message, &write)).collect();
        for (subject, headers, payload) in made {
            let reply = published.reply(number);
            let sent = pin!(client.publish_with_reply_and_headers(subject, reply, headers, payload));
            match block_on(sent, deadline) {
                Some(Ok(())) => {}
                Some(Err(error)) if is_too_large(&error) => published.skip(),
                Some(Err(_)) => return Err(LOST.to_owned()),
                None => return Err("the client's queue is full".to_owned()),
            }
            number += 1;
        }
    }
    let sent = Instant::now();
    meanwhile();
    let poll_until = poll.limit(messages.len()).map(|limit| Instant::now() + limit);
    let answers = published.wait(poll_until, sent, deadline)?;
    poll.answered(messages.len(), sent.elapsed());
    let limit = client.max_payload();
    Ok(answers.into_iter().map(|answer| read(answer.map(Incoming::from).ok_or(limit))).collect())
}

pub(super) fn is_too_large(error: &PublishError) -> bool {
    error.kind() == PublishErrorKind::MaxPayloadExceeded
}

/// The result of a future, which mostly is complete at once, or `None` after the deadline.
fn block_on<F: Future>(mut future: Pin<&mut F>, deadline: Instant) -> Option<F::Output> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        return Some(result);
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(result);
        }
        thread::park_timeout(deadline.checked_duration_since(Instant::now())?);
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("generation", &self.generation).finish_non_exhaustive()
    }
}
