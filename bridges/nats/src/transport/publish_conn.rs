//! The connection by which events are published, for one thread at a time: many are written one behind the other, and their answers awaited together.
//! It is made when it is needed, and dropped after any failure: a late answer would be taken for another one's.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::provider::{BackendError, Backoff, BusyPoll};

use crate::jetstream::message::{self as js, Stored};
use crate::transport::frame::{self as wire, Frame};
use crate::transport::socket::{Address, Connection, in_words, new_inbox};

/// How long it is waited for the next answer, and for all of them.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
const CALL_LIMIT: Duration = Duration::from_secs(10);
/// After so long without use it is seen whether the connection is still there.
const UNSURE_AFTER: Duration = Duration::from_secs(5);
/// Bytes that are sent at a time: the server works on them while the next ones are written.
const PART: usize = 16 * 1024;
/// Its only subscription.
const ANSWERS: u64 = 1;

/// See the module's page.
#[derive(Debug)]
pub(crate) struct Line {
    address: Arc<Address>,
    backoff: Arc<Backoff>,
    open: Option<Open>,
}

struct Open {
    connection: Connection,
    /// Where the answers go: here, with the number of the message behind it.
    inbox: String,
    next: u64,
    poll: BusyPoll,
    last_use: Instant,
}

/// A message that is being written.
pub(crate) struct Outgoing<'a> {
    to: &'a mut Vec<u8>,
    reply: &'a str,
    /// Bytes that count for the largest that the server takes.
    size: usize,
}

impl Outgoing<'_> {
    pub(crate) fn write(&mut self, subject: &str, headers: wire::Block, payload: &[u8]) {
        self.size = wire::publish(self.to, subject, self.reply, Some(headers), payload);
    }
}

impl Line {
    pub(crate) fn new(address: Arc<Address>, backoff: Arc<Backoff>) -> Self {
        Self { address, backoff, open: None }
    }

    /// Publishes messages in their order, and waits until each is stored or refused: at most 2 s for each answer and 10 s for all.
    pub(crate) fn publish<M>(
        &mut self,
        messages: &[M],
        write: impl Fn(&M, &mut Outgoing<'_>),
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Vec<Stored>, BackendError> {
        let mut open = self.open()?;
        match open.publish(messages, write, meanwhile) {
            Ok(stored) => {
                open.last_use = Instant::now();
                self.open = Some(open);
                stored
            }
            Err(problem) => Err(BackendError::Unavailable(format!("{}: {problem}", self.address.place))),
        }
    }

    /// The connection that is there, or a new one.
    fn open(&mut self) -> Result<Open, BackendError> {
        if let Some(mut open) = self.open.take()
            && (open.last_use.elapsed() < UNSURE_AFTER || open.is_there())
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
        wire::subscribe(&mut connection.channel.outgoing, &format!("{inbox}.*"), ANSWERS);
        Ok(Self { connection, inbox, next: 0, poll: BusyPoll::default(), last_use: Instant::now() })
    }

    /// Whether the server still answers on it.
    fn is_there(&mut self) -> bool {
        wire::ping(&mut self.connection.channel.outgoing);
        if self.connection.send().is_err() {
            return false;
        }
        loop {
            match self.connection.frame() {
                Ok(Frame::Pong) => return true,
                Ok(Frame::Ping) => wire::pong(&mut self.connection.channel.outgoing),
                Ok(Frame::Refusal(_)) | Err(_) => return false,
                Ok(_) => {}
            }
        }
    }

    /// The outer error is one of the connection, the inner one what the server has said.
    fn publish<M>(
        &mut self,
        messages: &[M],
        write: impl Fn(&M, &mut Outgoing<'_>),
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Result<Vec<Stored>, BackendError>, String> {
        let began = self.next;
        let mut stored = vec![None; messages.len()];
        let mut left = messages.len();
        for (at, message) in messages.iter().enumerate() {
            let reply = format!("{}.{}", self.inbox, self.next);
            self.next += 1;
            let most = self.connection.max_payload;
            let to = &mut self.connection.channel.outgoing;
            let before = to.len();
            let mut outgoing = Outgoing { to, reply: &reply, size: 0 };
            write(message, &mut outgoing);
            if outgoing.size > most {
                to.truncate(before);
                stored[at] = Some(Stored::TooLarge(format!("it is larger than the server takes ({most} bytes)")));
                left -= 1;
            }
            if to.len() >= PART {
                self.connection.send()?;
            }
        }
        self.connection.send()?;
        let sent = Instant::now();
        meanwhile();
        let looked_for = self.poll.limit(messages.len()).map(|limit| Instant::now() + limit);
        let deadline = sent + CALL_LIMIT;
        let mut refused = None;
        while left > 0 {
            if let Some(until) = looked_for {
                self.connection.look_for_frame(until)?;
            }
            match self.connection.frame()? {
                Frame::Message(message) => {
                    let number = message.subject.rsplit('.').next().and_then(|it| it.parse::<u64>().ok());
                    let at = number.and_then(|number| number.checked_sub(began)).map(|it| it as usize);
                    let Some(place) = at.and_then(|at| stored.get_mut(at)).filter(|it| it.is_none()) else { continue };
                    let answer = js::read_answer(message.headers.status(), &message.payload);
                    // The others are still read, so that the next one's are the next ones.
                    *place = Some(answer.unwrap_or_else(|error| {
                        refused.get_or_insert(error);
                        Stored::Overtaken
                    }));
                    left -= 1;
                }
                Frame::Ping => {
                    wire::pong(&mut self.connection.channel.outgoing);
                    self.connection.send()?;
                }
                Frame::Refusal(reason) => return Err(format!("the server refuses: {reason}")),
                Frame::Info(_) | Frame::Pong | Frame::Done => {}
            }
            if Instant::now() >= deadline {
                return Err("no answer to everything in time".to_owned());
            }
        }
        self.poll.answered(messages.len(), sent.elapsed());
        Ok(refused.map_or_else(|| Ok(stored.into_iter().flatten().collect()), Err))
    }
}

impl fmt::Debug for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Open").field("connection", &self.connection).finish_non_exhaustive()
    }
}
