//! From a configuration to a provider, a broker and the global broker.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use eventbroker::error::PublishError;
use eventbroker::{Event, Source, global};
use eventbroker_providers::{Config, Loader, OpenError, init, open, shutdown, start};

fn config(section: &str) -> Config {
    let loader = Loader::new().yaml("c.yaml", format!("event_broker: {{ {section} }}")).environment([]);
    loader.load().expect("accepted").config
}

fn event() -> Event {
    Event::builder(Source::System, "a.b.c").build().expect("valid")
}

#[test]
fn memory_starts_with_the_settings() {
    assert_eq!(open(&config("")).expect("memory").name, "memory");
    let broker = start(&config("enabled: true, worker_count: 3, buffer_size: 17, instance_id: me")).expect("it starts");
    broker.subscribe("*", |_| ()).expect("subscribed");
    let stats = broker.stats();
    assert_eq!((stats.workers, stats.subscriptions[0].queue_capacity, &*stats.instance_id), (3, 17, "me"));
}

#[test]
fn what_is_disabled_does_not_start() {
    assert_eq!(start(&config("")).expect_err("disabled"), OpenError::Disabled);
}

/// A single test, because a process has one global broker.
#[test]
fn the_global_broker_follows_the_configuration() {
    init(&config("enabled: false")).expect("disabled");
    assert!(matches!(global::publish(event()), Err(PublishError::Disabled { .. })));
    // Until `shutdown`, `init` accepts a second disabled configuration, but no enabled one.
    init(&config("enabled: false")).expect("still disabled");
    let enabled = config("enabled: true, instance_id: first");
    assert_eq!(init(&enabled), Err(OpenError::Global(global::InitError::AlreadyInitialised)));
    assert_eq!(global::shutdown(Duration::ZERO), None);
    init(&enabled).expect("it starts");
    assert_eq!(
        init(&config("enabled: true, instance_id: second")),
        Err(OpenError::Global(global::InitError::AlreadyInitialised))
    );
    assert_eq!(global::get().expect("it is there").instance_id(), "first");
    assert!(global::publish(event()).is_ok());
    // A handler that outlasts the drain: `shutdown_timeout` sets its bound.
    let (sender, begun) = channel();
    let (release, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    global::subscribe("held", move |_| {
        sender.send(()).expect("the test waits");
        // Blocks until the test drops the sender.
        let _ = gate.lock().expect("nobody panics").recv();
    })
    .expect("subscribed");
    global::publish(Event::builder(Source::System, "held").build().expect("valid")).expect("accepted");
    begun.recv_timeout(Duration::from_secs(10)).expect("it runs");
    let (sender, stopped) = channel();
    std::thread::spawn(move || sender.send(shutdown(&config("shutdown_timeout: 10ms"))));
    let report = stopped.recv_timeout(Duration::from_secs(10)).expect("it waits no longer").expect("there was one");
    assert_eq!((report.is_clean(), report.abandoned.len()), (false, 1));
    drop(release);
    assert_eq!(shutdown(&enabled), None);
}
