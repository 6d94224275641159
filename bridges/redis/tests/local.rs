//! While the server is stopped, what needs no server goes on as before: the memory is bounded, the bridge's threads cost nearly nothing, and
//! all is well soon after it is back. Alone in its process, whose memory and threads it measures. `DOWN=60` has it away for so many seconds.

mod support;

use std::fs;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use eventbroker::{Broker, Confirm, PublishError};
use eventbroker_conformance::redis::Server;
use eventbroker_redis::Redis;

use support::{PATIENCE, RECOVERY, count_local, event, load, wait_until};

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
    let ticks: Vec<u64> = tasks
        .filter_map(|task| {
            // It may have ended meanwhile.
            let stat = fs::read_to_string(task.path().join("stat")).ok()?;
            let (name, rest) = stat.rsplit_once(')')?;
            // The kernel keeps 15 letters of it.
            let name = name.split_once('(')?.1;
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let time = fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?;
            ["mir", "ing", "set"].iter().any(|it| name == format!("eventbroker:{it}")).then_some(time)
        })
        .collect();
    assert_eq!(ticks.len(), 3, "the threads of one bridge");
    // Of a hundredth of a second.
    Duration::from_millis(10 * ticks.iter().sum::<u64>())
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
