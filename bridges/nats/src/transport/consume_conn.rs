//! The connection that consumes: messages of consumers arrive on it, and acknowledgements and API requests leave on it, so the answer to a request
//! comes behind the messages that the server delivered before it. One task of the session reads the connection; any thread writes to it.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures_channel::oneshot;
use futures_util::future::{Either, select};
use futures_util::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;

use super::frame::{self, Frame, Incoming};
use super::session::Session;
use super::socket::{Channel, Connection, WatchedSocket, in_words, new_inbox};

/// The time between two pings, and how many unanswered ones end the connection.
const PING_EVERY: Duration = Duration::from_secs(2);
const UNANSWERED: usize = 3;
/// From this number of open requests on, those of callers that gave up are dropped.
const OPEN_REQUESTS: usize = 1_024;
/// The largest number of reads in a row, and of messages that a reader gets together.
const READS: usize = 64;
const TOGETHER: usize = 256;
/// The number of the subscription to answers.
const ANSWERS: u64 = 0;

/// The connection that consumes.
pub(super) struct ConsumeConn {
    socket: WatchedSocket,
    state: Mutex<State>,
    /// Wakes the task when the socket has not taken all bytes.
    unsent: UnboundedSender<()>,
}

struct State {
    channel: Channel,
    next: u64,
    /// The readers of the subscriptions. Pull requests bound their queues.
    readers: HashMap<u64, UnboundedSender<Vec<Incoming>>>,
    /// The reply subjects are this and the number of the request.
    inbox: String,
    requests: HashMap<u64, oneshot::Sender<Incoming>>,
    /// The meaning of the next pongs.
    pings: VecDeque<Ping>,
}

/// The meaning of a pong.
enum Ping {
    /// The connection is alive.
    Alive,
    /// The server has processed all frames before it.
    Processed(oneshot::Sender<()>),
    /// No message of this subscription follows.
    Ended(u64),
}

/// The inbox of a consumer's pull requests: a subscription of this connection.
pub(crate) struct PullInbox {
    number: u64,
    conn: Arc<ConsumeConn>,
    messages: UnboundedReceiver<Vec<Incoming>>,
}

impl ConsumeConn {
    /// Reads a connection until that is lost; then calls `on_loss` with the reason.
    pub(super) fn start(connection: Connection, on_loss: impl Fn(&str) + Send + 'static) -> io::Result<Arc<Self>> {
        let Connection { stream, channel, .. } = connection;
        let (unsent, left) = unbounded();
        let mut state = State {
            channel,
            next: 1,
            readers: HashMap::new(),
            inbox: new_inbox(),
            requests: HashMap::new(),
            pings: VecDeque::new(),
        };
        frame::subscribe(&mut state.channel.outgoing, &format!("{}.*", state.inbox), ANSWERS);
        let conn = Arc::new(Self { socket: WatchedSocket::new(stream)?, state: Mutex::new(state), unsent });
        let task = Arc::clone(&conn);
        Session::spawn(async move {
            let why = task.run(left).await;
            on_loss(&why);
        });
        Ok(conn)
    }

    /// Reads and sends until the end of the connection. Returns the reason.
    async fn run(&self, mut unsent: UnboundedReceiver<()>) -> String {
        let mut next_ping = pin!(Session::pause(PING_EVERY));
        loop {
            let is_blocked = self.state.lock().channel.is_blocked();
            let ready = pin!(self.socket.ready(is_blocked));
            let result = match select(ready, select(unsent.next(), &mut next_ping)).await {
                Either::Left((Ok(()), _)) => self.read_all(),
                Either::Left((Err(error), _)) => return in_words(&error),
                // From now on `ready` waits for room as well.
                Either::Right((Either::Left(_), _)) => continue,
                Either::Right((Either::Right(_), _)) => {
                    next_ping.set(Session::pause(PING_EVERY));
                    self.ping()
                }
            };
            if let Err(why) = result.and_then(|()| self.send()) {
                return why;
            }
            // Other tasks run first.
            tokio::task::yield_now().await;
        }
    }

    /// Reads available bytes, a bounded number of times, so that other tasks run too.
    fn read_all(&self) -> Result<(), String> {
        for _ in 0..READS {
            if !self.read()? {
                break;
            }
        }
        Ok(())
    }

    /// Reads once, and hands over complete frames. False if nothing was available.
    fn read(&self) -> Result<bool, String> {
        let mut state = self.state.lock();
        match state.channel.read_from(&mut &self.socket) {
            Ok(0) => return Err("the connection was lost".to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(in_words(&error)),
        }
        let mut together: Vec<Incoming> = Vec::new();
        while let Some(frame) = state.channel.next_frame()? {
            match frame {
                Frame::Message(message) => {
                    if together.last().is_some_and(|last| last.number != message.number) {
                        state.hand_over(&mut together);
                    }
                    together.push(message);
                }
                Frame::Ping => frame::pong(&mut state.channel.outgoing),
                Frame::Pong => {
                    state.hand_over(&mut together);
                    match state.pings.pop_front() {
                        // The caller may have given up.
                        Some(Ping::Processed(sender)) => _ = sender.send(()),
                        Some(Ping::Ended(number)) => _ = state.readers.remove(&number),
                        Some(Ping::Alive) | None => {}
                    }
                }
                // The refused request gets no answer, and its caller an error.
                Frame::Refusal(reason) if reason.contains("Permissions") => {
                    tracing::warn!(reason, "NATS refuses a subject")
                }
                Frame::Refusal(reason) => return Err(format!("the server refuses: {reason}")),
                Frame::Info(_) | Frame::Ok => {}
            }
        }
        state.hand_over(&mut together);
        Ok(true)
    }

    fn ping(&self) -> Result<(), String> {
        let mut state = self.state.lock();
        if state.pings.iter().filter(|it| matches!(it, Ping::Alive)).count() >= UNANSWERED {
            return Err("the server is silent".to_owned());
        }
        state.ping(Ping::Alive);
        Ok(())
    }

    /// Writes a message. The next [`send`](Self::send) sends it.
    pub(super) fn publish(&self, subject: &str, reply: &str, payload: &[u8]) {
        frame::publish(&mut self.state.lock().channel.outgoing, subject, reply, None, payload);
    }

    /// Sends the written frames. The task sends the part that the socket does not take now.
    pub(super) fn send(&self) -> Result<(), String> {
        match self.state.lock().channel.write_to(&mut &self.socket) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // A failure means that the task has ended with the connection.
                let _ = self.unsent.unbounded_send(());
                Ok(())
            }
            Err(error) => Err(in_words(&error)),
        }
    }

    /// Writes a request. The answer may never come.
    pub(super) fn request(&self, subject: &str, payload: &[u8]) -> oneshot::Receiver<Incoming> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state.lock();
        let State { channel, next, inbox, requests, .. } = &mut *state;
        if requests.len() >= OPEN_REQUESTS {
            requests.retain(|_, sender| !sender.is_canceled());
        }
        frame::publish(&mut channel.outgoing, subject, &format!("{inbox}.{next}"), None, payload);
        requests.insert(*next, sender);
        *next += 1;
        answer
    }

    /// Waits until the server has processed all frames. False if the connection was lost.
    async fn is_processed(&self) -> bool {
        let (sender, processed) = oneshot::channel();
        self.state.lock().ping(Ping::Processed(sender));
        self.send().is_ok() && processed.await.is_ok()
    }

    /// Subscribes to a subject, and waits until the server has processed that. `None` if the connection was lost.
    pub(super) async fn subscribe(self: &Arc<Self>, subject: &Subject) -> Option<PullInbox> {
        let (sender, messages) = unbounded();
        let number = {
            let mut state = self.state.lock();
            let number = state.next;
            state.next += 1;
            state.readers.insert(number, sender);
            frame::subscribe(&mut state.channel.outgoing, subject, number);
            number
        };
        let inbox = PullInbox { number, conn: Arc::clone(self), messages };
        self.is_processed().await.then_some(inbox)
    }
}

impl State {
    fn hand_over(&mut self, together: &mut Vec<Incoming>) {
        let together = std::mem::take(together);
        if together.first().is_some_and(|message| message.number == ANSWERS) {
            for message in together {
                let number = message.subject.rsplit('.').next().and_then(|it| it.parse::<u64>().ok());
                if let Some(sender) = number.and_then(|number| self.requests.remove(&number)) {
                    // The caller may have given up.
                    let _ = sender.send(message);
                }
            }
        } else if let Some(reader) = together.first().and_then(|message| self.readers.get(&message.number)) {
            // The reader may just have ended.
            let _ = reader.unbounded_send(together);
        }
    }

    fn ping(&mut self, meaning: Ping) {
        frame::ping(&mut self.channel.outgoing);
        self.pings.push_back(meaning);
    }
}

impl PullInbox {
    /// The next messages that have arrived. `None` at the end of the subscription or the connection.
    pub(crate) async fn next(&mut self) -> Option<Vec<Incoming>> {
        let mut together = self.messages.next().await?;
        while together.len() < TOGETHER
            && let Some(Some(more)) = self.messages.next().now_or_never()
        {
            together.extend(more);
        }
        Some(together)
    }

    /// Unsubscribes. Messages in transit still arrive.
    pub(crate) fn end(&self) {
        let mut state = self.conn.state.lock();
        frame::unsubscribe(&mut state.channel.outgoing, self.number);
        state.ping(Ping::Ended(self.number));
        drop(state);
        // A lost connection ends the subscription too.
        let _ = self.conn.send();
    }
}
