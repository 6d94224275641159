//! The work of every contestant: publishers that build events in their loops, and handlers that count them. The
//! transport between them is that of the rival (`rivals`).

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use eventbroker::{Event, Payload, Source};

use super::sleeps;

/// The default type of the events.
pub(crate) const EVENT_TYPE: &str = "bench.orders.create";
/// The pattern of the matching subscriptions.
pub(crate) const PATTERN: &str = "bench.orders.*";
/// Deadline for handling all events after the last publish.
const PATIENCE: Duration = Duration::from_secs(60);

/// The numbers of publishers, workers and subscriptions, and the capacity of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) publishers: usize,
    /// Threads that handle the events of one subscription.
    pub(crate) workers: usize,
    /// Subscriptions, each of which receives every event.
    pub(crate) subscriptions: usize,
    /// The capacity of the queue, in events.
    pub(crate) capacity: usize,
}

impl Shape {
    pub(crate) const fn new(publishers: usize, workers: usize, capacity: usize) -> Self {
        Self { publishers, workers, subscriptions: 1, capacity }
    }
}

/// A pattern that matches no event.
pub(crate) fn other_pattern(n: usize) -> String {
    format!("bench.other{n}.create")
}

/// 100 bytes of JSON.
pub(crate) fn payload_json() -> String {
    format!("{{\"text\":\"{}\"}}", "x".repeat(89))
}

/// The work of one sample. Clones share its counts.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) shape: Shape,
    pub(crate) events: u64,
    /// Time between two events of a publisher; `None` for no limit.
    pub(crate) pace: Option<Duration>,
    /// The types of the events, in turn.
    types: Arc<[String]>,
    /// The keys of the events, in turn; empty for no key.
    keys: Arc<[String]>,
    tally: Arc<Tally>,
    sleeps: Arc<AtomicU64>,
}

impl Work {
    pub(crate) fn new(shape: Shape, events: u64) -> Self {
        Self {
            shape,
            events,
            pace: None,
            types: [EVENT_TYPE.to_owned()].into(),
            keys: Arc::default(),
            tally: Arc::default(),
            sleeps: Arc::default(),
        }
    }

    pub(crate) fn with_types(mut self, types: &Arc<[String]>) -> Self {
        self.types = Arc::clone(types);
        self
    }

    pub(crate) fn with_keys(mut self, keys: &Arc<[String]>) -> Self {
        self.keys = Arc::clone(keys);
        self
    }

    /// Publishes one event every `pace`, and records the latency of each.
    pub(crate) fn paced(mut self, pace: Duration) -> Self {
        self.pace = Some(pace);
        self.tally = Arc::new(Tally::with_latencies(self.events as usize));
        self
    }

    /// The tally that handlers call with each event.
    pub(crate) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }

    /// Publishes from each publisher's thread, and waits until each event is handled by each subscription. Returns the
    /// time from the first publish to the end of the last handler.
    pub(crate) fn time<P: FnMut(Events<'_>) + Send>(&self, publisher: impl FnMut() -> P) -> Duration {
        self.time_until(publisher, |all_handled| all_handled)
    }

    /// As [`time`](Self::time), but `settled` decides when the work is done. Its argument is whether every event is
    /// handled.
    pub(crate) fn time_until<P>(&self, publisher: impl FnMut() -> P, settled: impl Fn(bool) -> bool) -> Duration
    where
        P: FnMut(Events<'_>) + Send,
    {
        let slept = sleeps();
        let started = self.publish(publisher);
        let expected = self.events * self.shape.subscriptions as u64;
        let deadline = Instant::now() + PATIENCE;
        while !settled(self.tally.count() >= expected) {
            assert!(Instant::now() < deadline, "{} of {expected} events were handled", self.tally.count());
            thread::yield_now();
        }
        let took = started.elapsed();
        self.sleeps.store(sleeps().saturating_sub(slept), Ordering::Relaxed);
        assert_eq!(self.tally.count(), expected, "events were handled more than once");
        took
    }

    /// Runs the publishers to their end. Returns the time at which the first one began.
    fn publish<P: FnMut(Events<'_>) + Send>(&self, mut publisher: impl FnMut() -> P) -> Instant {
        let count = self.shape.publishers as u64;
        if count == 1 {
            let mut publish = publisher();
            let started = Instant::now();
            publish(self.share(0, self.events));
            return started;
        }
        let (ready, first) = (Barrier::new(self.shape.publishers), Mutex::new(None));
        thread::scope(|scope| {
            for n in 0..count {
                let (ready, first, mut publish) = (&ready, &first, publisher());
                let share = self.events / count + u64::from(n < self.events % count);
                scope.spawn(move || {
                    ready.wait();
                    first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
                    publish(self.share(n, share));
                });
            }
        });
        first.into_inner().unwrap_or_else(PoisonError::into_inner).expect("a publisher has begun")
    }

    fn share(&self, publisher: u64, events: u64) -> Events<'_> {
        let payload = Payload::from_json(payload_json()).expect("valid JSON");
        Events { work: self, payload, next: publisher, left: events, due: Instant::now() }
    }

    /// Sleeps of all threads during the work, per event. Threads that publish beside others are not counted.
    pub(crate) fn sleeps_per_event(&self) -> f64 {
        self.sleeps.load(Ordering::Relaxed) as f64 / self.events as f64
    }
}

/// The events of one publisher. Each is built by `next`, as a part of the publisher's loop.
#[derive(Debug)]
pub(crate) struct Events<'a> {
    work: &'a Work,
    /// Validated once, and shared by all events of this publisher.
    payload: Payload,
    next: u64,
    left: u64,
    due: Instant,
}

impl Events<'_> {
    /// The number of events left, for publishers that build their events themselves.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// The text of this turn. With one text the division is skipped, because it would cost more than the branch.
    fn turn<'t>(&self, texts: &'t [String]) -> &'t str {
        if texts.len() == 1 { &texts[0] } else { &texts[self.next as usize % texts.len()] }
    }
}

impl Iterator for Events<'_> {
    type Item = Event;

    #[inline]
    fn next(&mut self) -> Option<Event> {
        if self.left == 0 {
            return None;
        }
        if let Some(pace) = self.work.pace {
            wait_until(self.due);
            self.due += pace;
        }
        let Work { types, keys, .. } = self.work;
        let mut event = Event::builder(Source::System, self.turn(types)).payload_raw(self.payload.clone());
        if !keys.is_empty() {
            event = event.key(self.turn(keys));
        }
        self.next += 1;
        self.left -= 1;
        Some(event.build().expect("a valid event"))
    }
}

/// Sleeps through long waits and spins through short ones.
fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if left > Duration::from_micros(200) {
        thread::sleep(left);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

/// The work of a handler: counts, and records the latency of paced events.
// Aligned to a cache line of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Tally {
    count: AtomicU64,
    noted: AtomicU64,
    latencies: Box<[AtomicU64]>,
}

impl Tally {
    fn with_latencies(events: usize) -> Self {
        Self { latencies: (0..events).map(|_| AtomicU64::new(0)).collect(), ..Self::default() }
    }

    #[inline]
    pub(crate) fn handle(&self, event: &Event) {
        black_box(event.payload());
        if !self.latencies.is_empty() {
            self.note_latency(event);
        }
        self.count.fetch_add(1, Ordering::Release);
    }

    /// Counts an item of another type, for rivals that do not carry events.
    #[inline]
    pub(crate) fn handle_other<T>(&self, it: &T) {
        black_box(it);
        self.count.fetch_add(1, Ordering::Release);
    }

    fn note_latency(&self, event: &Event) {
        // The wall clock may have been set back since: counts as 0.
        let passed = SystemTime::now().duration_since(event.created_at()).unwrap_or_default();
        let place = self.noted.fetch_add(1, Ordering::Relaxed);
        self.latencies[place as usize].store(passed.as_nanos() as u64, Ordering::Relaxed);
    }

    pub(crate) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The latencies from publish to handled, in nanoseconds.
    pub(crate) fn latencies(&self) -> Vec<u64> {
        self.latencies.iter().map(|nanos| nanos.load(Ordering::Relaxed)).collect()
    }
}
