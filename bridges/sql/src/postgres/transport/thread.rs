//! A thread of the bridge, which ends with its handle.

use std::io;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::thread::Builder;
use std::time::Duration;

use parking_lot::Mutex;

/// How long a drop waits for the end of the thread. A thread that waits for a silent server ends later.
const END_LIMIT: Duration = Duration::from_secs(1);

/// A handle on a thread. A drop waits for the end of the thread, which must have been asked to end before.
pub(crate) struct Thread {
    ended: Mutex<Receiver<()>>,
}

impl Thread {
    pub(crate) fn start(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<Self> {
        let (end, ended) = sync_channel::<()>(0);
        Builder::new().name(format!("eventbroker-pg-{name}")).spawn(move || {
            run();
            drop(end);
        })?;
        Ok(Self { ended: Mutex::new(ended) })
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.lock().try_recv() == Err(TryRecvError::Disconnected)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // Nothing is ever sent: the channel closes when the thread ends.
        let _ = self.ended.lock().recv_timeout(END_LIMIT);
    }
}
