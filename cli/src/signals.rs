//! SIGINT and SIGTERM: the first requests a clean stop, the second ends the process at once. Each command polls
//! [`stop_requested`] at least every 50 ms and stops in its own way.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The number of the first signal, 0 before.
static RECEIVED: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Installs the handlers. Before this call a signal has its default action.
///
/// # Errors
/// The operating system refused to install a handler.
pub(crate) fn listen() -> io::Result<()> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // The order matters: the first signal finds `asked` false and sets it, the second finds it true and exits.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))?;
        flag::register(signal, Arc::clone(&asked))?;
        flag::register_usize(signal, Arc::clone(&RECEIVED), signal as usize)?;
    }
    Ok(())
}

/// Whether a signal has requested a stop. One relaxed load.
pub(crate) fn stop_requested() -> bool {
    received().is_some()
}

/// The number of the signal that requested the stop.
pub(crate) fn received() -> Option<i32> {
    match RECEIVED.load(Ordering::Relaxed) {
        0 => None,
        signal => i32::try_from(signal).ok(),
    }
}
