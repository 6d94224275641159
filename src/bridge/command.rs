//! The commands to the settling thread, and their queue.

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
    /// Removes a subscription permanently. The answer: whether the back end knew the subscription.
    Remove(Arc<str>, Arc<Latch<Result<bool, BackendError>>>),
    Settle(Settlement),
    /// Marks the start of a suspect's call. The answer: whether the lease is still valid.
    Mark(LeaseToken, Arc<Latch<bool>>),
    /// Answers when every earlier command has been executed.
    Reach(Arc<Latch<()>>),
    /// Removes the mark of a call that has ended without settling its lease.
    Unmark(LeaseToken),
    /// Wakes the thread, which finds the bridge closing.
    Close,
}

/// The queue of commands. Its length is bounded by the leases and subscriptions of this process.
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
        // Sending fails only without a receiver, and `self` holds one.
        let _ = self.sender.send(command);
    }

    /// Waits for a command, at most `timeout`; without a timeout, until a command comes.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Option<Command> {
        match timeout {
            Some(timeout) => self.receiver.recv_timeout(timeout).ok(),
            None => self.receiver.recv().ok(),
        }
    }

    /// Takes the commands that are queued now.
    pub(crate) fn drain(&self) -> impl Iterator<Item = Command> + '_ {
        self.receiver.try_iter()
    }
}
