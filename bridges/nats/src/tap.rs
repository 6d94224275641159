//! The connection on which the messages of consumers come in, and their acknowledgements leave. It lives as long as the client's, on the same
//! thread: one task reads it, and whoever has something to say on it writes it there.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_nats::Subject;
use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures_channel::oneshot;
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use parking_lot::Mutex;

use crate::runtime::{Session, Socket};
use crate::socket::{Channel, Connection, in_words};
use crate::wire::{self, Frame, Incoming};

/// How often the server is asked whether it is there, and after how many questions without an answer it is taken for gone.
const ASK_EVERY: Duration = Duration::from_secs(2);
const UNANSWERED: usize = 3;

/// See the module's page.
pub(crate) struct Tap {
    socket: Socket,
    state: Mutex<State>,
    /// Tells the task that something could not be sent at once.
    unsent: UnboundedSender<()>,
}

struct State {
    channel: Channel,
    next: u64,
    /// Bounded by what was asked for.
    readers: HashMap<u64, UnboundedSender<Vec<Incoming>>>,
    asked: VecDeque<Asked>,
}

/// What the server's next sign of life means.
enum Asked {
    Life,
    /// All before it was heard.
    Heard(oneshot::Sender<()>),
    /// Nothing more comes for this subscription.
    Ended(u64),
}

/// A subscription on this connection: what comes together is handed over together.
pub(crate) struct Tapped {
    number: u64,
    tap: Arc<Tap>,
    messages: UnboundedReceiver<Vec<Incoming>>,
}

impl Tap {
    /// Begins to read a connection, until that is lost; then `on_loss` is called.
    pub(crate) fn start(connection: Connection, on_loss: impl Fn(&str) + Send + 'static) -> io::Result<Arc<Self>> {
        let Connection { stream, channel, .. } = connection;
        let (unsent, left) = unbounded();
        let state = State { channel, next: 1, readers: HashMap::new(), asked: VecDeque::new() };
        let tap = Arc::new(Self { socket: Socket::new(stream)?, state: Mutex::new(state), unsent });
        let task = Arc::clone(&tap);
        Session::spawn(async move {
            let why = task.run(left).await;
            on_loss(&why);
            // Nobody waits for what never comes.
            let mut state = task.state.lock();
            state.readers.clear();
            state.asked.clear();
        });
        Ok(tap)
    }

    /// Returns why it has ended.
    async fn run(&self, mut unsent: UnboundedReceiver<()>) -> String {
        let mut turn = pin!(Session::pause(ASK_EVERY));
        loop {
            let is_blocked = self.state.lock().channel.is_blocked();
            let ready = pin!(self.socket.ready(is_blocked));
            let result = match select(ready, select(unsent.next(), &mut turn)).await {
                Either::Left((Ok(()), _)) => self.read(),
                Either::Left((Err(error), _)) => return in_words(&error),
                // From now on it is waited for room for it as well.
                Either::Right((Either::Left(_), _)) => continue,
                Either::Right((Either::Right(_), _)) => {
                    turn.set(Session::pause(ASK_EVERY));
                    self.ask_for_life()
                }
            };
            if let Err(why) = result.and_then(|()| self.send()) {
                return why;
            }
            Session::give_way().await;
        }
    }

    /// Reads once what has come, and hands it over.
    fn read(&self) -> Result<(), String> {
        let mut state = self.state.lock();
        match state.channel.read_from(&mut &self.socket) {
            Ok(0) => return Err("the connection was lost".to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(in_words(&error)),
        }
        let mut together: Vec<Incoming> = Vec::new();
        while let Some(frame) = state.channel.next()? {
            match frame {
                Frame::Message(message) => {
                    if together.last().is_some_and(|last| last.number != message.number) {
                        state.hand_over(&mut together);
                    }
                    together.push(message);
                }
                Frame::Ping => wire::pong(&mut state.channel.outgoing),
                Frame::Pong => {
                    state.hand_over(&mut together);
                    match state.asked.pop_front() {
                        // Who has asked may have given up.
                        Some(Asked::Heard(sender)) => _ = sender.send(()),
                        Some(Asked::Ended(number)) => _ = state.readers.remove(&number),
                        Some(Asked::Life) | None => {}
                    }
                }
                // What it refuses is not answered, which is seen elsewhere.
                Frame::Refusal(reason) if reason.contains("Permissions") => tracing::warn!(reason, "NATS refuses"),
                Frame::Refusal(reason) => return Err(format!("the server refuses: {reason}")),
                Frame::Info(_) | Frame::Done => {}
            }
        }
        state.hand_over(&mut together);
        Ok(())
    }

    fn ask_for_life(&self) -> Result<(), String> {
        let mut state = self.state.lock();
        if state.asked.iter().filter(|it| matches!(it, Asked::Life)).count() >= UNANSWERED {
            return Err("the server is silent".to_owned());
        }
        state.ask(Asked::Life);
        Ok(())
    }

    /// Writes a message; it is sent with the next [`send`](Self::send).
    pub(crate) fn publish(&self, subject: &str, reply: &str, payload: &[u8]) {
        wire::publish(&mut self.state.lock().channel.outgoing, subject, reply, None, payload);
    }

    /// Sends what was written: what the socket does not take now goes later.
    pub(crate) fn send(&self) -> Result<(), String> {
        match self.state.lock().channel.write_to(&mut &self.socket) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // If the task has ended, nothing is sent any more.
                let _ = self.unsent.unbounded_send(());
                Ok(())
            }
            Err(error) => Err(in_words(&error)),
        }
    }

    /// Waits until the server has heard what was sent. False if the connection was lost.
    pub(crate) async fn is_heard(&self) -> bool {
        let (sender, heard) = oneshot::channel();
        self.state.lock().ask(Asked::Heard(sender));
        self.send().is_ok() && heard.await.is_ok()
    }

    /// Has what is sent to an address come here, and the server know it.
    pub(crate) async fn subscribe(self: &Arc<Self>, address: &Subject) -> Option<Tapped> {
        let (sender, messages) = unbounded();
        let number = {
            let mut state = self.state.lock();
            let number = state.next;
            state.next += 1;
            state.readers.insert(number, sender);
            wire::subscribe(&mut state.channel.outgoing, address, number);
            number
        };
        let tapped = Tapped { number, tap: Arc::clone(self), messages };
        self.is_heard().await.then_some(tapped)
    }
}

impl State {
    fn hand_over(&self, together: &mut Vec<Incoming>) {
        let together = std::mem::take(together);
        if let Some(reader) = together.first().and_then(|message| self.readers.get(&message.number)) {
            // Who reads may just have gone.
            let _ = reader.unbounded_send(together);
        }
    }

    fn ask(&mut self, asked: Asked) {
        wire::ping(&mut self.channel.outgoing);
        self.asked.push_back(asked);
    }
}

impl Tapped {
    /// What comes next; nothing at the end of the subscription or the connection.
    pub(crate) async fn next(&mut self) -> Option<Vec<Incoming>> {
        self.messages.next().await
    }

    /// Nothing more is to come; what is on its way still does.
    pub(crate) fn end(&self) {
        let mut state = self.tap.state.lock();
        wire::unsubscribe(&mut state.channel.outgoing, self.number);
        state.ask(Asked::Ended(self.number));
        drop(state);
        // A connection that is lost ends it too.
        let _ = self.tap.send();
    }
}

impl fmt::Debug for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tap").finish_non_exhaustive()
    }
}
