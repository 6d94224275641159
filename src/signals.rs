//! The end of a program by SIGINT or SIGTERM. Only who calls [`run_until_signal`] gets signal handlers; the rest of the library
//! installs none.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;

use crate::broker::Broker;
use crate::lifecycle::StopReport;

/// Blocks until SIGINT or SIGTERM comes, then [stops](Broker::stop) the broker, draining for at most `deadline`. A second
/// signal forces it: what is not handled by then is given up, and the report names it. Once this has returned, a signal ends
/// the process in the usual way.
///
/// Call it on the main thread, as the last thing. It waits for a signal also if somebody else has stopped the broker.
///
/// # Errors
/// The operating system refused the signal handlers; the broker runs on.
///
/// ```no_run
/// use eventbroker::{Broker, run_until_signal};
/// use std::time::Duration;
///
/// let broker = Broker::builder().start()?;
/// // … subscribe, start the threads that publish …
/// let report = run_until_signal(&broker, Duration::from_secs(30))?;
/// std::process::exit(if report.is_clean() { 0 } else { 1 });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn run_until_signal(broker: &Broker, deadline: Duration) -> io::Result<StopReport> {
    // First whoever listens: a signal between the two must not get lost.
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let done = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_default(signal, Arc::clone(&done))?;
    }
    let handle = signals.handle();
    let mut arrivals = signals.forever();
    arrivals.next();
    tracing::info!("a signal asks for the end: draining for at most {deadline:?}");
    let report = thread::scope(|scope| {
        let stopping = scope.spawn(|| {
            let report = broker.stop(deadline);
            handle.close();
            report
        });
        if arrivals.next().is_some() {
            tracing::warn!("a second signal asks for the end: giving up what is not handled");
            broker.hasten_stop();
        }
        stopping.join()
    });
    done.store(true, Ordering::SeqCst);
    report.map_err(|_| io::Error::other("stopping the broker panicked"))
}
