//! The figures of a proof, printed as they are measured, and whether each bound held; and helpers of the proofs.

use std::fmt::Display;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Event, EventBuilder, Source};

/// The figures of one proof.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    broken: usize,
    short: bool,
}

impl Figures {
    /// The figures of the short form, or of the long one.
    pub(crate) fn new(short: bool) -> Self {
        Self { broken: 0, short }
    }

    /// Prints a figure without a bound.
    pub(crate) fn note(&mut self, what: &str, value: impl Display) {
        println!("  {what:<58} {value}");
    }

    /// Prints a figure with the text of its bound, and records whether the bound holds.
    pub(crate) fn check(&mut self, what: &str, value: impl Display, bound: &str, holds: bool) {
        let verdict = if holds { "ok" } else { "BROKEN" };
        println!("  {what:<58} {value} ({bound}) {verdict}");
        self.broken += usize::from(!holds);
    }

    /// Checks a comparison of two rates or latencies. The short form only prints a miss: it is too short for a verdict.
    pub(crate) fn compared(&mut self, what: &str, value: impl Display, bound: &str, holds: bool) {
        if self.short && !holds {
            println!("  {what:<58} {value} ({bound}) missed; not enforced in the short form");
        } else {
            self.check(what, value, bound, holds);
        }
    }

    /// Checks that a figure has exactly this value.
    pub(crate) fn exactly<T: Display + PartialEq>(&mut self, what: &str, value: T, wanted: T) {
        let bound = format!("must be {wanted}");
        let holds = value == wanted;
        self.check(what, value, &bound, holds);
    }

    pub(crate) fn all_held(&self) -> bool {
        self.broken == 0
    }
}

/// The value below which a share of the samples lies. Sorts them.
pub(crate) fn quantile(samples: &mut [u64], share: f64) -> Duration {
    samples.sort_unstable();
    let at = (samples.len() as f64 * share) as usize;
    Duration::from_nanos(samples.get(at.min(samples.len().saturating_sub(1))).copied().unwrap_or(0))
}

/// An event of a type, with a payload.
pub(crate) fn event(event_type: &str, payload: &impl EventPayload) -> Event {
    payload.put(Event::builder(Source::System, event_type)).build().expect("a valid event")
}

/// A value that can be the payload of an event.
pub(crate) trait EventPayload {
    fn put(&self, builder: EventBuilder) -> EventBuilder;
}

impl EventPayload for u64 {
    fn put(&self, builder: EventBuilder) -> EventBuilder {
        builder.payload(self)
    }
}

impl EventPayload for (u64, u64) {
    fn put(&self, builder: EventBuilder) -> EventBuilder {
        builder.payload(self)
    }
}

/// Publishes an event, and retries while the queue is full.
pub(crate) fn publish_until_accepted(broker: &Broker, mut event: Event) {
    loop {
        match broker.publish(event) {
            Ok(_) => return,
            Err(error) if error.is_full() => event = error.into_event(),
            Err(error) => panic!("refused: {error}"),
        }
        std::thread::yield_now();
    }
}

/// Waits until every accepted event is settled; false after a minute.
pub(crate) fn wait_until_settled(broker: &Broker) -> bool {
    let deadline = Instant::now() + Duration::from_secs(60);
    while broker.stats().in_flight > 0 {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

/// Resident memory of this process, in KiB.
pub(crate) fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("the status of this process");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line with VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number of KiB")
}

/// Runs `action` at a steady rate for a time. A late call is made up for without a pause.
pub(crate) fn at_rate(per_second: u64, duration: Duration, mut action: impl FnMut(u64)) {
    let (start, gap) = (Instant::now(), Duration::from_secs(1).div_f64(per_second as f64));
    for number in 0..(duration.as_secs_f64() * per_second as f64) as u64 {
        let due = start + gap.mul_f64(number as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        action(number);
    }
}
