//! A broker may be dropped in an async host, in a handler, and while a panic unwinds: no hang, and no thread is left.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use eventbroker::{Broker, SubscribeOptions};
use eventbroker_conformance::nats::Server;
use eventbroker_conformance::watch::{PATIENCE, event, wait_until};
use eventbroker_nats::Nats;

fn start(server: &Server) -> Broker {
    Broker::builder().provider(Nats::new(server.url()).open().expect("it opens")).start().expect("it starts")
}

/// Threads of brokers and bridges.
fn threads() -> usize {
    let all = std::fs::read_dir("/proc/self/task").expect("this process");
    let names = all.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.starts_with("eventbroker")).count()
}

fn wait_until_none_is_left(what: &str) {
    wait_until(&format!("no thread is left {what}"), || threads() == 0);
}

#[test]
fn a_broker_may_be_dropped_anywhere() {
    let _process = crate::process();
    let server = Server::start();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let broker = start(&server);
        broker.publish(event("a.b")).expect("it is accepted");
        drop(broker);
    });
    wait_until_none_is_left("in an async host");

    let broker = start(&server);
    let (hand_over, given) = channel::<Broker>();
    let (sender, dropped) = channel();
    let given = std::sync::Mutex::new(given);
    broker
        .subscribe_with(SubscribeOptions::new("a.*").name("last"), move |_| {
            let last = given.lock().expect("no panic under the lock").recv_timeout(PATIENCE).expect("the broker");
            drop(last);
            sender.send(()).expect("the test listens");
        })
        .expect("a subscription");
    broker.publish(event("a.b")).expect("it is accepted");
    hand_over.send(broker).expect("the handler waits");
    dropped.recv_timeout(PATIENCE).expect("it does not wait for itself");
    wait_until_none_is_left("in a handler");

    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let broker = start(&server);
        broker.publish(event("a.b")).expect("it is accepted");
        std::panic::resume_unwind(Box::new("a panic of the host"));
    }));
    unwound.expect_err("it has panicked");
    wait_until_none_is_left("while unwinding");

    // The drop takes less than 10 s without a server.
    let broker = start(&server);
    server.crash();
    let began = Instant::now();
    drop(broker);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    wait_until_none_is_left("without a server");
}
