//! While the server is stopped, what needs no server goes on as before: the memory is bounded, the bridge's threads cost nearly nothing, and
//! all is well soon after it is back. Alone in its process, whose memory and threads it measures. `DOWN=60` has it away for so many seconds;
//! the rates are compared in a release build only.

mod support;

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Confirm, PublishError, Scope, SubscribeOptions};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

use support::{PATIENCE, RECOVERY, event, load, wait_until};

/// What the buffer holds, as its documentation says.
const BUFFER: u64 = 10_000;

/// Bytes of memory that this process uses.
fn memory() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").expect("this process");
    pages.split(' ').nth(1).and_then(|it| it.parse::<u64>().ok()).expect("pages") * 4096
}

/// Processor time of the threads of the bridge.
fn used_by_bridge() -> Duration {
    let tasks = fs::read_dir("/proc/self/task").expect("this process").flatten();
    let ticks = tasks.filter_map(|task| {
        // It may have ended meanwhile.
        let stat = fs::read_to_string(task.path().join("stat")).ok()?;
        let (name, rest) = stat.rsplit_once(')')?;
        // The kernel keeps 15 letters of it.
        let name = name.split_once('(')?.1;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let time = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
        ["mir", "ing", "set"].iter().any(|it| name == format!("eventbroker:{it}")).then_some(time)
    });
    // Of a hundredth of a second.
    Duration::from_millis(10 * ticks.sum::<u64>())
}

fn count_local(broker: &Broker) -> Arc<AtomicU64> {
    let count = Arc::new(AtomicU64::new(0));
    let shared = Arc::clone(&count);
    broker
        .subscribe_with(SubscribeOptions::new("local.*").name("local").scope(Scope::Local), move |_| {
            shared.fetch_add(1, Ordering::SeqCst);
        })
        .expect("a subscription");
    count
}

/// Events per second that a broker without a back end handles, as fast as it can.
fn rate(broker: &Broker, count: &AtomicU64, time: Duration) -> f64 {
    let (before, began) = (count.load(Ordering::SeqCst), Instant::now());
    while began.elapsed() < time {
        for _ in 0..100 {
            // It may be full: the handler decides how fast it goes.
            let _ = broker.publish(event("local.it"));
        }
    }
    (count.load(Ordering::SeqCst) - before) as f64 / began.elapsed().as_secs_f64()
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

#[test]
fn what_is_local_goes_on_while_the_server_is_stopped() {
    let server = Server::start();
    let provider = Redis::new(server.url()).open().expect("it opens");
    let broker = Broker::builder().confirm(Confirm::Buffered).provider(provider).start().expect("it starts");
    let handled = count_local(&broker);
    // No slower than before: so many events that the buffer holds them, evenly.
    let time = load::down(Duration::from_secs(2));
    let published = (BUFFER - 1_000).min(2_000 * time.as_secs());
    let paced = |time: Duration| {
        let (before, began) = (handled.load(Ordering::SeqCst), Instant::now());
        for number in 0..published {
            broker.publish(event("local.it")).expect("it is accepted");
            let due = time.mul_f64(number as f64 / published as f64);
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
        wait_until("all are handled", || handled.load(Ordering::SeqCst) == before + published);
        published as f64 / began.elapsed().as_secs_f64()
    };
    let with = paced(time);
    wait_until("the buffer is empty", || broker.stats().bridge.is_some_and(|bridge| bridge.mirror_backlog == 0));
    server.crash();
    let (used, began) = (used_by_bridge(), Instant::now());
    let without = paced(time);
    let load = (used_by_bridge() - used).as_secs_f64() / began.elapsed().as_secs_f64();
    // More than the buffer holds is refused, again and again.
    let (before, mut refused) = (memory(), 0_u64);
    for _ in 0..20 * BUFFER {
        match broker.publish(event("local.it")) {
            Ok(_) => {}
            Err(PublishError::Full { .. }) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    let grown = memory().saturating_sub(before);
    let backlog = broker.stats().bridge.map_or(0, |bridge| bridge.mirror_backlog);
    server.up();
    let back = Instant::now();
    wait_until("the buffer is empty", || broker.stats().bridge.is_some_and(|bridge| bridge.mirror_backlog == 0));
    broker.publish(event("local.it")).expect("it is accepted");
    let back = back.elapsed();
    println!(
        "the server stopped: {without:.0} events/s handled here of {with:.0} before, {:.2} % of a core for the bridge, \
         {backlog} buffered and {refused} refused, {} KiB more memory, all sent {back:?} after its return",
        load * 100.0,
        grown / 1024
    );
    assert!(without >= 0.95 * with, "{without} of {with}");
    assert!(load < 0.05, "{load} of a core");
    assert!(backlog == BUFFER && refused > 0, "{backlog} are buffered, {refused} refused");
    assert!(grown < 64 << 20, "{grown} bytes");
    assert!(back < RECOVERY, "{back:?}");
    assert!(broker.stop(PATIENCE).is_clean());
}

#[test]
fn a_broker_without_a_back_end_is_as_fast_beside_it() {
    let server = Server::start();
    let provider = Redis::new(server.url()).open().expect("it opens");
    let bridged = Broker::builder().provider(provider).start().expect("it starts");
    bridged.subscribe_with(SubscribeOptions::new("a.*").name("all"), |_| ()).expect("a subscription");
    let plain = Broker::builder().start().expect("it starts");
    let count = count_local(&plain);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let time = Duration::from_millis(if cfg!(debug_assertions) { 100 } else { 1_000 });
    rate(&plain, &count, time);
    for _ in 0..7 {
        with.push(rate(&plain, &count, time));
        server.crash();
        without.push(rate(&plain, &count, time));
        server.up();
    }
    let (with, without) = (median(with), median(without));
    println!("beside it: {without:.0} events/s while the server is stopped, {with:.0} while it runs");
    assert!(without > 0.0 && (cfg!(debug_assertions) || without >= 0.95 * with), "{without} of {with}");
    bridged.publish(event("a.b")).expect("it is accepted");
    assert!(bridged.stop(PATIENCE).is_clean() && plain.stop(PATIENCE).is_clean());
}
