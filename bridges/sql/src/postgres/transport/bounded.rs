//! Work on the network that may never end, with a limit on the wait for it.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread::Builder;
use std::time::Duration;

/// How long a server may leave a session without an answer while it answers another one. The limit of an attempt to connect, too.
pub(crate) const SILENCE: Duration = Duration::from_secs(10);

/// Runs `work` on a thread of its own, and waits for it at most `limit`. After that the thread ends by itself when the connection does.
///
/// # Errors
/// A text: no thread, no end within the limit, or a panic.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    let (done, end) = sync_channel(1);
    let thread = Builder::new().name("eventbroker-pg-try".to_owned());
    // The caller may have given up meanwhile.
    let started = thread.spawn(move || _ = done.send(work()));
    started.map_err(|error| format!("a thread could not be started: {error}"))?;
    end.recv_timeout(limit).map_err(|error| match error {
        RecvTimeoutError::Timeout => format!("has not answered within {limit:?}"),
        RecvTimeoutError::Disconnected => "a thread has panicked".to_owned(),
    })
}

/// Drops a connection on a thread of its own: the client waits there for answers that are outstanding, which may never come.
pub(crate) fn discard(connection: impl Send + 'static) {
    let _ = within(Duration::ZERO, move || drop(connection));
}
