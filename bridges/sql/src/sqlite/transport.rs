//! The way to the file: its connections, the clock that its processes share, and the detection of other processes' commits.

mod clock;
mod connection;
mod watcher;

pub(crate) use clock::{boot_id, deadline, now_millis};
pub(crate) use connection::{BUSY_LIMIT, BUSY_PAUSE, DatabaseFile, Reader, Sync, backend_error, file_error};
pub(crate) use watcher::Watcher;
