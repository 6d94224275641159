//! Standard output, shared by the handlers: complete lines, buffered, and the first write error.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

const BUFFER_BYTES: usize = 256 * 1024;

/// The output; any thread may write lines.
#[derive(Debug)]
pub(super) struct Output {
    writer: Mutex<BufWriter<File>>,
    /// The buffer may hold lines that are not flushed.
    is_dirty: AtomicBool,
    /// No more lines will be written.
    is_finished: AtomicBool,
    /// The first write error; nothing is written after it.
    error: OnceLock<io::Error>,
    has_error: AtomicBool,
}

impl Output {
    /// Opens standard output without the line buffer of the standard library.
    pub(super) fn stdout() -> io::Result<Self> {
        let file = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        Ok(Self {
            writer: Mutex::new(BufWriter::with_capacity(BUFFER_BYTES, file)),
            is_dirty: AtomicBool::new(false),
            is_finished: AtomicBool::new(false),
            error: OnceLock::new(),
            has_error: AtomicBool::new(false),
        })
    }

    /// Writes a line. Blocks while the pipe is full. Returns false after a write error.
    pub(super) fn line(&self, mut line: Vec<u8>) -> bool {
        line.push(b'\n');
        let mut writer = self.writer();
        if self.has_ended() {
            return false;
        }
        let written = writer.write_all(&line);
        self.is_dirty.store(true, Ordering::Relaxed);
        self.keep(written)
    }

    /// Flushes the buffer. Blocks while the pipe is full.
    pub(super) fn flush(&self) {
        if self.is_dirty.swap(false, Ordering::Relaxed) {
            let mut writer = self.writer();
            if !self.has_ended() {
                let flushed = writer.flush();
                self.keep(flushed);
            }
        }
    }

    fn writer(&self) -> MutexGuard<'_, BufWriter<File>> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, result: io::Result<()>) -> bool {
        let Err(error) = result else { return true };
        self.error.get_or_init(|| error);
        self.has_error.store(true, Ordering::Release);
        false
    }

    /// Lets the flusher thread end after its next flush.
    pub(super) fn finish(&self) {
        self.is_finished.store(true, Ordering::Release);
    }

    pub(super) fn is_finished(&self) -> bool {
        self.is_finished.load(Ordering::Acquire)
    }

    /// Whether a write has failed, so that nothing more is written.
    pub(super) fn has_ended(&self) -> bool {
        self.has_error.load(Ordering::Acquire)
    }

    /// Whether the reader of the output has closed the pipe.
    pub(super) fn is_closed(&self) -> bool {
        self.error().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    }

    pub(super) fn error(&self) -> Option<&io::Error> {
        self.error.get()
    }
}
