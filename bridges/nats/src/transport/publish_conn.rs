//! The connection that publishes events, for one thread at a time: a batch is written as one stream of frames, and its answers are awaited
//! together. The connection is made when it is needed, and dropped after any failure: a late answer would be taken for that of another message.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, Backoff, BusyPoll};

use super::address::Address;
use super::frame::{self, Frame, HeaderBlock, Incoming};
use super::socket::{Connection, in_words, new_inbox};

/// How long the next answer may take, and all of them.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// A connection that was unused for longer is checked with a ping.
const UNSURE_AFTER: Duration = Duration::from_secs(5);
/// Bytes of one send: the server handles them while the next ones are written.
const PART: usize = 16 * 1024;
/// The number of the only subscription.
const ANSWERS: u64 = 1;

/// The connection that publishes events.
pub(crate) struct PublishConn {
    address: Arc<Address>,
    backoff: Arc<Backoff>,
    open: Option<Open>,
}

struct Open {
    connection: Connection,
    /// The reply subjects are this and the number of the message.
    inbox: String,
    next: u64,
    poll: BusyPoll,
    last_use: Instant,
}

/// Writes a message: its subject, its headers and its body.
pub(crate) type Put<'a> = &'a mut dyn FnMut(&str, &[(&str, &str)], &[u8]);

impl PublishConn {
    pub(super) fn new(address: Arc<Address>, backoff: Arc<Backoff>) -> Self {
        Self { address, backoff, open: None }
    }

    /// Publishes messages in their order, and returns their answers as `read` parses them. For a message larger than the server's limit `read` gets
    /// that limit in bytes. Waits at most 2 s for each answer and 10 s for all.
    pub(crate) fn publish<M, A: Clone>(
        &mut self,
        messages: &[M],
        write: impl Fn(&M, Put<'_>),
        read: impl Fn(Result<Incoming, usize>) -> Result<A, BackendError>,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Vec<A>, BackendError> {
        let mut open = self.open()?;
        match open.publish(messages, write, read, meanwhile) {
            Ok(answers) => {
                open.last_use = Instant::now();
                self.open = Some(open);
                answers
            }
            Err(problem) => Err(BackendError::Unavailable(format!("{}: {problem}", self.address.place))),
        }
    }

    /// The existing connection, or a new one.
    fn open(&mut self) -> Result<Open, BackendError> {
        if let Some(mut open) = self.open.take()
            && (open.last_use.elapsed() < UNSURE_AFTER || open.answers_ping())
        {
            return Ok(open);
        }
        self.backoff.attempt(|| Open::new(&self.address))
    }
}

impl Open {
    fn new(address: &Address) -> Result<Self, String> {
        let mut connection = address.connect(None)?;
        let lost = |error| format!("{}: {}", address.place, in_words(&error));
        connection.stream.set_read_timeout(Some(ANSWER_LIMIT)).map_err(lost)?;
        let inbox = new_inbox();
        frame::subscribe(&mut connection.channel.outgoing, &format!("{inbox}.*"), ANSWERS);
        Ok(Self { connection, inbox, next: 0, poll: BusyPoll::default(), last_use: Instant::now() })
    }

    fn answers_ping(&mut self) -> bool {
        frame::ping(&mut self.connection.channel.outgoing);
        if self.connection.send().is_err() {
            return false;
        }
        loop {
            match self.connection.read_frame() {
                Ok(Frame::Pong) => return true,
                Ok(Frame::Ping) => frame::pong(&mut self.connection.channel.outgoing),
                Ok(Frame::Refusal(_)) | Err(_) => return false,
                Ok(_) => {}
            }
        }
    }

    /// The outer error is one of the connection, the inner one a refusal of the server.
    fn publish<M, A: Clone>(
        &mut self,
        messages: &[M],
        write: impl Fn(&M, Put<'_>),
        read: impl Fn(Result<Incoming, usize>) -> Result<A, BackendError>,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Result<Vec<A>, BackendError>, String> {
        let began = self.next;
        let mut answers = vec![None; messages.len()];
        let mut left = messages.len();
        for (at, message) in messages.iter().enumerate() {
            let reply = format!("{}.{}", self.inbox, self.next);
            self.next += 1;
            let most = self.connection.max_payload;
            let to = &mut self.connection.channel.outgoing;
            let (before, mut size) = (to.len(), 0);
            write(message, &mut |subject, headers, payload| {
                let mut block = HeaderBlock::default();
                headers.iter().for_each(|(name, value)| block.add(name, value));
                size = frame::publish(to, subject, &reply, Some(block), payload);
            });
            if size > most {
                to.truncate(before);
                answers[at] = Some(read(Err(most)));
                left -= 1;
            }
            if to.len() >= PART {
                self.connection.send()?;
            }
        }
        self.connection.send()?;
        let sent = Instant::now();
        meanwhile();
        let poll_until = self.poll.limit(messages.len()).map(|limit| Instant::now() + limit);
        let deadline = sent + CALL_LIMIT;
        while left > 0 {
            if let Some(until) = poll_until {
                self.connection.poll_for_frame(until)?;
            }
            match self.connection.read_frame()? {
                Frame::Message(message) => {
                    let number = message.subject.rsplit('.').next().and_then(|it| it.parse::<u64>().ok());
                    let at = number.and_then(|number| number.checked_sub(began)).map(|it| it as usize);
                    if let Some(slot) = at.and_then(|at| answers.get_mut(at)).filter(|it| it.is_none()) {
                        // A refusal ends the call after the last answer, so that the next call reads its own answers.
                        *slot = Some(read(Ok(message)));
                        left -= 1;
                    }
                }
                Frame::Ping => {
                    frame::pong(&mut self.connection.channel.outgoing);
                    self.connection.send()?;
                }
                Frame::Refusal(reason) => return Err(format!("the server refuses: {reason}")),
                Frame::Info(_) | Frame::Pong | Frame::Ok => {}
            }
            if Instant::now() >= deadline {
                return Err("no answer to every message in time".to_owned());
            }
        }
        self.poll.answered(messages.len(), sent.elapsed());
        Ok(answers.into_iter().flatten().collect())
    }
}
