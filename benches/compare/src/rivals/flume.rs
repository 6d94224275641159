//! flume's bounded channel.

use std::sync::Arc;

use eventbroker::Event;

use super::channel::Channel;

/// The rival `flume`.
#[derive(Debug)]
pub(crate) struct Flume;

impl Channel for Flume {
    const NAME: &'static str = "bare flume";
    type Sender = flume::Sender<Arc<Event>>;
    type Receiver = flume::Receiver<Arc<Event>>;

    fn bounded(capacity: usize) -> (Self::Sender, Self::Receiver) {
        flume::bounded(capacity)
    }

    fn send(sender: &Self::Sender, event: Arc<Event>) {
        sender.send(event).expect("a receiver");
    }

    fn receive(receiver: &Self::Receiver) -> Option<Arc<Event>> {
        receiver.recv().ok()
    }
}
