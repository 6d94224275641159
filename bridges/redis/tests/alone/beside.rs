//! A broker without a back end keeps its rate while the server of another broker in the same process is stopped. Only a
//! release build compares the rates.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use eventbroker::{Broker, SubscribeOptions};
use eventbroker_conformance::redis::Server;
use eventbroker_conformance::watch::count_local;
use eventbroker_redis::Redis;

use crate::support::{PATIENCE, event};

/// The events per second that a broker without a back end handles under constant load.
fn rate(broker: &Broker, count: &AtomicU64, time: Duration) -> f64 {
    let (before, began) = (count.load(Ordering::SeqCst), Instant::now());
    while began.elapsed() < time {
        for _ in 0..100 {
            // A full queue rejects the publish: the handler limits the rate.
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
fn a_broker_without_a_back_end_keeps_its_rate() {
    let _process = crate::process();
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
