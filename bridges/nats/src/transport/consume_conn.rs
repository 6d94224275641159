//! The connection on which the messages of consumers come in, their acknowledgements leave, and the API is asked: what the server answers comes
//! behind the messages that it has delivered before. It lives as long as the client's, on the same thread: one task reads it, and whoever has
//! something to say on it writes it there.

use std::collections::{HashMap, VecDeque};
use std::fmt;
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

use crate::transport::frame::{self as wire, Frame, Incoming};
use crate::transport::runtime::{Session, Socket};
use crate::transport::socket::{Channel, Connection, in_words, new_inbox};

/// How often the server is asked whether it is there, and after how many questions without an answer it is taken for gone.
const ASK_EVERY: Duration = Duration::from_secs(2);
const UNANSWERED: usize = 3;
/// When there are so many questions without an answer, those are forgotten whose asker has given up.
const QUESTIONS: usize = 1_024;
/// Reads in a row, and messages that are looked at together if there are so many.
const READS: usize = 64;
const TOGETHER: usize = 256;
/// The subscription to the answers.
const ANSWERS: u64 = 0;

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
    /// Where answers come in, with the number of the question behind it; and who waits for one.
    inbox: String,
    questions: HashMap<u64, oneshot::Sender<Incoming>>,
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
        let mut state = State {
            channel,
            next: 1,
            readers: HashMap::new(),
            inbox: new_inbox(),
            questions: HashMap::new(),
            asked: VecDeque::new(),
        };
        wire::subscribe(&mut state.channel.outgoing, &format!("{}.*", state.inbox), ANSWERS);
        let tap = Arc::new(Self { socket: Socket::new(stream)?, state: Mutex::new(state), unsent });
        let task = Arc::clone(&tap);
        Session::spawn(async move {
            // Who waits for an answer goes with the runtime.
            let why = task.run(left).await;
            on_loss(&why);
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
                Either::Left((Ok(()), _)) => self.read_all(),
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

    /// Reads what has come, so that it is looked at together, but no more than others can wait for.
    fn read_all(&self) -> Result<(), String> {
        for _ in 0..READS {
            if !self.read()? {
                break;
            }
        }
        Ok(())
    }

    /// Reads once, and hands over what has come. False if nothing has.
    fn read(&self) -> Result<bool, String> {
        let mut state = self.state.lock();
        match state.channel.read_from(&mut &self.socket) {
            Ok(0) => return Err("the connection was lost".to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
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
        Ok(true)
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

    /// Writes a question, as a message is written. The answer may never come.
    pub(crate) fn ask(&self, subject: &str, payload: &[u8]) -> oneshot::Receiver<Incoming> {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state.lock();
        let State { channel, next, inbox, questions, .. } = &mut *state;
        if questions.len() >= QUESTIONS {
            questions.retain(|_, sender| !sender.is_canceled());
        }
        wire::publish(&mut channel.outgoing, subject, &format!("{inbox}.{next}"), None, payload);
        questions.insert(*next, sender);
        *next += 1;
        answer
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
    fn hand_over(&mut self, together: &mut Vec<Incoming>) {
        let together = std::mem::take(together);
        if together.first().is_some_and(|message| message.number == ANSWERS) {
            for message in together {
                let number = message.subject.rsplit('.').next().and_then(|it| it.parse::<u64>().ok());
                if let Some(sender) = number.and_then(|number| self.questions.remove(&number)) {
                    // Who has asked may have given up.
                    let _ = sender.send(message);
                }
            }
        } else if let Some(reader) = together.first().and_then(|message| self.readers.get(&message.number)) {
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
    /// What comes next, and what is here beside it; nothing at the end of the subscription or the connection.
    pub(crate) async fn next(&mut self) -> Option<Vec<Incoming>> {
        let mut together = self.messages.next().await?;
        while together.len() < TOGETHER
            && let Some(Some(more)) = self.messages.next().now_or_never()
        {
            together.extend(more);
        }
        Some(together)
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
