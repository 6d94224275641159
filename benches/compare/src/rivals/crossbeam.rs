//! crossbeam-channel's bounded channel.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use eventbroker::Event;

use super::channel::Channel;

/// The rival `crossbeam-channel`.
#[derive(Debug)]
pub(crate) struct Crossbeam;

impl Channel for Crossbeam {
    const NAME: &'static str = "bare crossbeam";
    type Sender = Sender<Arc<Event>>;
    type Receiver = Receiver<Arc<Event>>;

    fn bounded(capacity: usize) -> (Self::Sender, Self::Receiver) {
        crossbeam_channel::bounded(capacity)
    }

    fn send(sender: &Self::Sender, event: Arc<Event>) {
        sender.send(event).expect("a receiver");
    }

    fn receive(receiver: &Self::Receiver) -> Option<Arc<Event>> {
        receiver.recv().ok()
    }
}
