//! The end of a program by SIGINT or SIGTERM. Only who calls [`run_until_signal`] gets signal handlers; the rest of the library
//! installs none.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::{Handle, Signals};

use super::Broker;
use crate::outcome::StopReport;

/// Blocks until SIGINT or SIGTERM comes, then [stops](Broker::stop) the broker, draining for at most `deadline`. A second
/// signal forces it: what is not handled by then is given up, and the report names it. Once this has returned, a signal ends
/// the process in the usual way.
///
/// It can be called again, and for several brokers at once: a signal goes to all that wait, and has its usual effect when
/// none is left. It waits for a signal also if somebody else has stopped the broker. While it runs it has a thread of its own.
///
/// # Errors
/// The operating system refused the signal handlers or the thread; the broker runs on.
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
    let (listening, mut signals) = Listening::begin()?;
    let (sender, first) = channel();
    thread::scope(|scope| {
        // Dropped before the scope waits for the listener, whose wait it ends.
        let listening = listening;
        let listener =
            thread::Builder::new().name("eventbroker:signals".to_owned()).spawn_scoped(scope, move || {
                let mut arrivals = signals.forever();
                if arrivals.next().is_none() || sender.send(()).is_err() {
                    return;
                }
                if arrivals.next().is_some() {
                    tracing::warn!("a second signal asks for the end: giving up what is not handled");
                    broker.expedite_stop();
                }
            })?;
        first.recv().map_err(|_| io::Error::other("the thread that listens for signals ended"))?;
        tracing::info!("a signal asks for the end: draining for at most {deadline:?}");
        let report = broker.stop(deadline);
        drop(listening);
        listener.join().map_err(|_| io::Error::other("the thread that listens for signals panicked"))?;
        Ok(report)
    })
}

/// How many calls wait for signals, or stop because of one.
static LISTENERS: Mutex<Listeners> = Mutex::new(Listeners { count: 0, are_usual_effects_kept: false });
/// Whether a signal has its usual effect: nobody listens.
static IS_USUAL: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));

struct Listeners {
    count: usize,
    /// A signal handler that was installed once stays; this one does what would happen without.
    are_usual_effects_kept: bool,
}

/// One that listens. Its end ends the wait.
struct Listening {
    handle: Handle,
}

impl Listening {
    fn begin() -> io::Result<(Self, Signals)> {
        let mut listeners = LISTENERS.lock();
        // The usual effect first: then it is never lost, whatever fails, and a signal has either it or a listener.
        if !listeners.are_usual_effects_kept {
            for signal in [SIGINT, SIGTERM] {
                flag::register_conditional_default(signal, Arc::clone(&IS_USUAL))?;
            }
            listeners.are_usual_effects_kept = true;
        }
        let signals = Signals::new([SIGINT, SIGTERM])?;
        listeners.count += 1;
        IS_USUAL.store(false, Ordering::SeqCst);
        Ok((Self { handle: signals.handle() }, signals))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut listeners = LISTENERS.lock();
        listeners.count -= 1;
        if listeners.count == 0 {
            IS_USUAL.store(true, Ordering::SeqCst);
        }
        drop(listeners);
        self.handle.close();
    }
}
