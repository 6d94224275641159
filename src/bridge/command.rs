//! The commands of the settling thread, and their queue.

use std::sync::Arc;
use std::time::Duration;

use flume::{Receiver, Sender};

use super::notify::Latch;
use super::registration::Registered;
use crate::outcome::BackendError;
use crate::provider::{LeaseToken, Registration, Settlement};

/// One request to the settling thread.
pub(crate) enum Command {
    Register(Registration, Arc<Registered>),
    Unregister(Arc<str>),
    /// Removes a subscription permanently; the answer says whether it was known.
    Remove(Arc<str>, Arc<Latch<Result<bool, BackendError>>>),
    Settle(Settlement),
    /// Marks the start of a suspect's call; the answer says whether the lease is still good.
    Mark(LeaseToken, Arc<Latch<bool>>),
    /// Answers when everything before this command is done.
    Reach(Arc<Latch<()>>),
    /// Removes the mark of a call whose lease goes on.
    Unmark(LeaseToken),
    /// Does what is left, and ends.
    Close,
}

/// The queue of commands. The leases and the subscriptions that exist bound it.
pub(crate) struct Commands {
    sender: Sender<Command>,
    receiver: Receiver<Command>,
}

impl Commands {
    pub(super) fn new() -> Self {
        let (sender, receiver) = flume::unbounded();
        Self { sender, receiver }
    }

    pub(crate) fn send(&self, command: Command) {
        // Sending fails only without a receiver, which lives beside the sender.
        let _ = self.sender.send(command);
    }

    /// Waits for a command, at most `timeout` if there is one.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Option<Command> {
        match timeout {
            Some(timeout) => self.receiver.recv_timeout(timeout).ok(),
            None => self.receiver.recv().ok(),
        }
    }

    /// The commands that wait now.
    pub(crate) fn drain(&self) -> impl Iterator<Item = Command> + '_ {
        self.receiver.try_iter()
    }
}
