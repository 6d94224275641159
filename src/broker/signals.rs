//! Stopping a broker on SIGINT or SIGTERM. Only [`run_until_signal`] installs signal handlers.

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

/// Blocks until SIGINT or SIGTERM, then [stops](Broker::stop) the broker.
///
/// The stop drains for at most `deadline`. A second signal ends the drain at once: open events are abandoned and
/// reported.
///
/// It can be called again, and for several brokers at once: a signal goes to all waiting calls, and has its default
/// action if there is none. It also waits for a signal if the broker is stopped otherwise. While it runs it has a
/// thread of its own.
///
/// # Errors
/// The operating system refused the signal handlers or the thread; the broker continues to run.
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
        // Dropped before the scope joins the listener thread, because its drop ends that thread's wait.
        let listening = listening;
        let listener =
            thread::Builder::new().name("eventbroker:signals".to_owned()).spawn_scoped(scope, move || {
                let mut arrivals = signals.forever();
                if arrivals.next().is_none() || sender.send(()).is_err() {
                    return;
                }
                if arrivals.next().is_some() {
                    tracing::warn!("second signal: abandoning the events that are not handled yet");
                    broker.expedite_stop();
                }
            })?;
        first.recv().map_err(|_| io::Error::other("the signal thread ended"))?;
        tracing::info!("signal received: draining for at most {deadline:?}");
        let report = broker.stop(deadline);
        drop(listening);
        listener.join().map_err(|_| io::Error::other("the signal thread panicked"))?;
        Ok(report)
    })
}

/// The calls that wait for a signal, or that stop a broker because of one.
static LISTENERS: Mutex<Listeners> = Mutex::new(Listeners { count: 0, has_default_action: false });
/// Whether a signal gets its default action: true while no call listens.
static DEFAULT_ACTION: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));

struct Listeners {
    count: usize,
    /// The signal handler for the default action is installed. Signal handlers stay installed.
    has_default_action: bool,
}

/// Counts one listening call. Its drop ends the call's wait for signals.
struct Listening {
    handle: Handle,
}

impl Listening {
    fn begin() -> io::Result<(Self, Signals)> {
        let mut listeners = LISTENERS.lock();
        // First, so that a signal always has either its default action or a listener, also if the next step fails.
        if !listeners.has_default_action {
            for signal in [SIGINT, SIGTERM] {
                flag::register_conditional_default(signal, Arc::clone(&DEFAULT_ACTION))?;
            }
            listeners.has_default_action = true;
        }
        let signals = Signals::new([SIGINT, SIGTERM])?;
        listeners.count += 1;
        DEFAULT_ACTION.store(false, Ordering::SeqCst);
        Ok((Self { handle: signals.handle() }, signals))
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut listeners = LISTENERS.lock();
        listeners.count -= 1;
        if listeners.count == 0 {
            DEFAULT_ACTION.store(true, Ordering::SeqCst);
        }
        drop(listeners);
        self.handle.close();
    }
}
