//! Goal P8: each bridge against its own client driven by hand, on the same back end in the same run. The measurements,
//! the same for all bridges, are here; creating a back end and driving it by hand is in the file of each.

mod apart;
mod nats;
mod postgres;
mod redis;
mod sqlite;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::provider::Provider;
use eventbroker::{Broker, Confirm, Event, EventBuilder, Source, SubscribeOptions};

use crate::harness::{Plan, Samples, quantile};
use crate::report::{Row, Table};
use crate::rivals::Role;

pub(crate) use apart::receive;
pub(crate) use nats::run as nats;
pub(crate) use postgres::run as postgres;
pub(crate) use redis::run as redis;
pub(crate) use sqlite::run as sqlite;

const PAYLOAD: &str =
    r#"{"customer":42,"items":[{"sku":"A-1","count":2},{"sku":"B-7","count":1}],"total":"99.90","note":"x"}"#;
const STOP: Duration = Duration::from_secs(30);
/// Events per `publish_batch` when a back end is filled before a measurement.
const FILL: u64 = 200;

/// A kind of back end.
trait Site {
    /// Creates an empty back end, and returns its address.
    fn fresh(&self) -> String;
    fn remove(&self, address: &str);
    fn provider(&self, address: &str) -> Provider;
    /// Flushes earlier writes, so that they are not flushed during the measurement.
    fn settle_down(&self, _address: &str) {}
}

/// A contestant: its name, and a function that works on a new back end and returns events per second.
struct Contestant<'a> {
    name: String,
    role: Role,
    run: Box<dyn Fn(&str) -> f64 + 'a>,
}

impl<'a> Contestant<'a> {
    fn by_hand(name: &str, run: impl Fn(&str) -> f64 + 'a) -> Self {
        Self { name: format!("by hand, {name}"), role: Role::Yardstick, run: Box::new(run) }
    }

    fn ours(name: &str, run: impl Fn(&str) -> f64 + 'a) -> Self {
        Self { name: name.to_owned(), role: Role::Ours, run: Box::new(run) }
    }
}

/// Runs the contestants in turn, each on a new back end.
fn compare(plan: &Plan, site: &dyn Site, title: &str, bases: &[&'static str], contestants: &[Contestant<'_>]) -> Table {
    let rounds = plan.interleave(contestants, |contestant| {
        let address = site.fresh();
        let rate = (contestant.run)(&address);
        site.remove(&address);
        rate
    });
    let rows =
        contestants.iter().zip(rounds).map(|(it, rates)| Row::by(it.role, &it.name, rates.into_iter().collect()));
    Table::new(title, "events/s", bases, rows.collect())
}

fn event() -> EventBuilder {
    Event::builder(Source::System, "shop.orders.create").payload_json(PAYLOAD)
}

fn options() -> SubscribeOptions {
    SubscribeOptions::new("shop.**").name("all")
}

fn start(site: &dyn Site, address: &str, confirm: Confirm) -> Broker {
    Broker::builder().buffer_size(10_000).confirm(confirm).provider(site.provider(address)).start().expect("it starts")
}

/// Registers a subscription without members, and publishes events to it, so that each has a waiting delivery.
fn prepare(site: &dyn Site, address: &str, events: u64) {
    let broker = start(site, address, Confirm::Confirmed);
    let id = broker.subscribe_with(options(), |_| ()).expect("a subscription");
    broker.unsubscribe(id).expect("it is there");
    (0..events / FILL).for_each(|_| fill(&broker, FILL));
    broker.stop(STOP);
    site.settle_down(address);
}

fn fill(broker: &Broker, events: u64) {
    let accepted = broker.publish_batch((0..events).map(|_| event().build().expect("a valid event")));
    accepted.into_iter().for_each(|it| drop(it.expect("it is accepted")));
}

/// Runs `work` on one thread per tool until `events` are done in batches. Returns events per second.
fn rate_of<T: Send>(tools: Vec<T>, events: u64, batch: u64, work: impl Fn(&mut T) + Sync) -> f64 {
    let times = (events / tools.len() as u64 / batch).max(1);
    let done = times * tools.len() as u64 * batch;
    let began = Instant::now();
    thread::scope(|scope| {
        for mut tool in tools {
            let work = &work;
            scope.spawn(move || (0..times).for_each(|_| work(&mut tool)));
        }
    });
    done as f64 / began.elapsed().as_secs_f64()
}

/// Confirmed publishes from several threads. Returns events per second.
fn publish(site: &dyn Site, address: &str, events: u64, threads: usize, batch: u64) -> f64 {
    prepare(site, address, 0);
    let broker = start(site, address, Confirm::Confirmed);
    let rate = publish_with(&broker, events, threads, batch);
    broker.stop(STOP);
    rate
}

fn publish_with(broker: &Broker, events: u64, threads: usize, batch: u64) -> f64 {
    rate_of(vec![(); threads], events, batch, |()| {
        if batch == 1 {
            broker.publish(event().build().expect("a valid event")).expect("it is accepted");
        } else {
            fill(broker, batch);
        }
    })
}

/// Buffered publishes, until the back end holds all events. Returns events per second.
fn publish_buffered(site: &dyn Site, address: &str, events: u64) -> f64 {
    prepare(site, address, 0);
    let broker = start(site, address, Confirm::Buffered);
    let began = Instant::now();
    for _ in 0..events {
        let mut event = event().build().expect("a valid event");
        while let Err(refused) = broker.publish(event) {
            event = refused.into_event();
            thread::sleep(Duration::from_micros(200));
        }
    }
    while broker.stats().bridge.is_some_and(|bridge| bridge.mirror_backlog > 0) {
        thread::sleep(Duration::from_micros(200));
    }
    let rate = events as f64 / began.elapsed().as_secs_f64();
    broker.stop(STOP);
    rate
}

/// Consumes until every event is handled and settled. Returns events per second.
fn consume(site: &dyn Site, address: &str, events: u64) -> f64 {
    prepare(site, address, events);
    let broker = start(site, address, Confirm::Confirmed);
    let handled = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&handled);
    let began = Instant::now();
    broker.subscribe_with(options(), move |_| _ = counted.fetch_add(1, Ordering::Relaxed)).expect("a subscription");
    let leases = || broker.stats().bridge.map_or(0, |bridge| bridge.leases);
    while handled.load(Ordering::Relaxed) < events / FILL * FILL || leases() > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    let rate = events as f64 / began.elapsed().as_secs_f64();
    broker.stop(STOP);
    rate
}

/// Latency in milliseconds at 1,000 events a second from eight threads. Each event has a scheduled time, from which its
/// latency counts even if earlier publishes are late.
fn latency(plan: &Plan, site: &dyn Site) -> Table {
    let events = plan.pick(2_000, 50);
    let rounds: Vec<[f64; 2]> = (0..plan.rounds).map(|_| latency_of(site, events)).collect();
    let row = |name, at: usize| Row::named(name, rounds.iter().map(|round| round[at]).collect::<Samples>());
    Table::new("publish to handler inside one process, 1,000 events/s", "ms", &[], vec![row("p50", 0), row("p99", 1)])
}

fn latency_of(site: &dyn Site, events: i64) -> [f64; 2] {
    const THREADS: i64 = 8;
    let address = site.fresh();
    let broker = start(site, &address, Confirm::Confirmed);
    let (sender, calls) = channel();
    let handler = broker.subscribe_with(options(), move |delivery| {
        // The receiver is dropped at the end.
        let _ = sender.send((delivery.event().user_id(), Instant::now()));
    });
    handler.expect("a subscription");
    let began = Instant::now() + Duration::from_millis(100);
    let turn = |number: i64| began + Duration::from_millis(number as u64);
    thread::scope(|scope| {
        for first in 1..=THREADS {
            let broker = &broker;
            scope.spawn(move || {
                for number in (first..=events).step_by(THREADS as usize) {
                    thread::sleep(turn(number).saturating_duration_since(Instant::now()));
                    let event = event().user_id(number).build().expect("a valid event");
                    broker.publish(event).expect("it is accepted");
                }
            });
        }
    });
    let calls = calls.iter().take(events as usize);
    let mut took: Vec<u64> = calls
        .map(|(number, at)| at.saturating_duration_since(turn(number.expect("a number"))).as_nanos() as u64)
        .collect();
    broker.stop(STOP);
    site.remove(&address);
    [0.5, 0.99].map(|share| quantile(&mut took, share) / 1e6)
}
