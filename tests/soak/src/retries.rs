//! Failing events beside healthy ones in the same subscription.

use std::sync::Arc;
use std::time::{Duration, Instant};

use eventbroker::dead_letter::DeadLetterFilter;
use eventbroker::{Broker, HandlerError, RetryPolicy, SubscribeOptions};
use std::sync::Mutex;

use crate::figures::{Figures, at_rate, event, quantile, wait_until_settled};

/// A broker with one subscription, whose handler fails `mixed.entry.fail` events and records the latencies of the
/// others.
struct Mixed {
    broker: Broker,
    latencies: Arc<Mutex<Vec<u64>>>,
    start: Instant,
}

impl Mixed {
    fn new(policy: RetryPolicy) -> Self {
        let broker = Broker::builder().start().expect("a broker");
        let (latencies, start) = (Arc::new(Mutex::new(Vec::new())), Instant::now());
        let samples = Arc::clone(&latencies);
        broker
            .subscribe_with(SubscribeOptions::new("mixed.**").retry(policy), move |delivery| {
                if delivery.event().operation() == Some("fail") {
                    return Err(HandlerError::retry("always"));
                }
                let published: u64 = delivery.event().payload_as()?;
                let latency = start.elapsed().as_nanos() as u64 - published;
                samples.lock().expect("the samples").push(latency);
                Ok(())
            })
            .expect("a subscription");
        Self { broker, latencies, start }
    }

    /// Publishes a healthy event; false if it was rejected.
    fn healthy(&self) -> bool {
        let now = self.start.elapsed().as_nanos() as u64;
        self.broker.publish(event("mixed.entry.ok", &now)).is_ok()
    }

    fn p99(&self) -> Duration {
        quantile(&mut self.latencies.lock().expect("the samples"), 0.99)
    }
}

/// Allowance above twice the latency without failures: the cost of waking a core.
const SLACK: Duration = Duration::from_micros(200);

pub(crate) fn poison(short: bool, figures: &mut Figures) {
    let rounds = if short { 1 } else { 10 };
    let run = |poisoned: bool| {
        let policy = RetryPolicy::fixed(3, Duration::from_millis(20));
        let mixed = Mixed::new(policy);
        if poisoned {
            mixed.broker.publish(event("mixed.entry.fail", &0)).expect("room");
        }
        let mut refused = 0;
        at_rate(5_000, Duration::from_secs(2), |_| refused += u64::from(!mixed.healthy()));
        assert!(wait_until_settled(&mixed.broker), "everything settles");
        (mixed, refused)
    };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let (mixed, refused) = run(false);
        figures.exactly("refused without the failing event", refused, 0);
        without.push(mixed.p99().as_nanos() as u64);
        let (mixed, refused) = run(true);
        with.push(mixed.p99().as_nanos() as u64);
        figures.exactly("refused beside the failing event", refused, 0);
        figures.exactly("dead letters", mixed.broker.dead_letter_count().expect("the back end answers"), 1);
        let letters = mixed.broker.dead_letters(&DeadLetterFilter::default()).expect("the back end answers");
        figures.exactly("calls for the failing event", letters.first().map_or(0, |letter| letter.attempts), 4);
    }
    compare(figures, &mut without, &mut with);
}

pub(crate) fn failing(short: bool, figures: &mut Figures) {
    let duration = Duration::from_secs(if short { 2 } else { 60 });
    let run = |failures: bool| {
        let mixed = Mixed::new(RetryPolicy::default());
        let (mut refused, mut offered) = (0_u64, 0_u64);
        at_rate(1_000, duration, |number| {
            if failures && number % 10 == 0 {
                mixed.broker.publish(event("mixed.entry.fail", &0)).expect("room for failing events");
            }
            offered += 1;
            refused += u64::from(!mixed.healthy());
        });
        let stats = mixed.broker.stats();
        let p99 = mixed.p99();
        mixed.broker.stop(Duration::ZERO);
        (offered, refused, p99, stats)
    };
    let (_, refused, p99_without, _) = run(false);
    figures.exactly("healthy events refused without failures", refused, 0);
    let (offered, refused, p99_with, stats) = run(true);
    figures.note("healthy events offered", offered);
    figures.note("failing events offered", offered / 10);
    figures.note("retries so far", stats.retries);
    figures.note("dead letters so far", stats.dead_letters);
    figures.exactly("healthy events refused beside failures", refused, 0);
    compare(figures, &mut [p99_without.as_nanos() as u64], &mut [p99_with.as_nanos() as u64]);
}

fn compare(figures: &mut Figures, without: &mut [u64], with: &mut [u64]) {
    let (without, with) = (quantile(without, 0.5), quantile(with, 0.5));
    figures.note("p99 of healthy events without failures", format!("{without:?}"));
    let holds = with <= without * 2 + SLACK;
    figures.compared("p99 of healthy events beside failures", format!("{with:?}"), "at most 2 x + 0.2 ms", holds);
}
