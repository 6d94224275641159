//! SIGINT and SIGTERM: the first asks for a clean end, the second ends the process at once. What a clean end is, each
//! command knows by itself: it looks at [`stop_requested`] at least every 50 ms.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

/// The number of the first signal, 0 before.
static RECEIVED: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// Begins to listen. Before this call a signal ends the process in the usual way.
///
/// # Errors
/// The operating system refused.
pub(crate) fn listen() -> io::Result<()> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag down and raises it, the second finds it up.
        flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&asked))?;
        flag::register(signal, Arc::clone(&asked))?;
        flag::register_usize(signal, Arc::clone(&RECEIVED), signal as usize)?;
    }
    Ok(())
}

/// Whether a signal asked for the end. Cheap.
pub(crate) fn stop_requested() -> bool {
    received().is_some()
}

/// The signal that asked for the end.
pub(crate) fn received() -> Option<i32> {
    match RECEIVED.load(Ordering::Relaxed) {
        0 => None,
        signal => i32::try_from(signal).ok(),
    }
}
