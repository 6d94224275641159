//! Publishing trouble is counted and logged, and the operation does not feel it.

mod support;

use std::fmt::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use eventbroker::hooks::{CrudHooks, CrudHooksConfig, HookContext, HookRegistry, Operation, register_crud_hooks};
use eventbroker::{Broker, Delivery, Overflow, SubscribeOptions};
use parking_lot::Mutex;
use support::{Gate, PATIENCE, Settlements, receive};
use tracing::field::{Field, Visit};
use tracing::span;

const AN_HOUR: Duration = Duration::from_secs(3600);

fn publishing_to(broker: &Broker) -> (HookRegistry, CrudHooks) {
    let registry = HookRegistry::new();
    let published = register_crud_hooks(broker, &registry, CrudHooksConfig::default());
    (registry, published)
}

fn counts(published: &CrudHooks) -> (u64, u64) {
    (published.accepted(), published.refused())
}

#[test]
fn a_full_queue_loses_the_event_at_once_even_where_a_publisher_would_wait() {
    let broker = Broker::builder().start().expect("a running broker");
    let gate = Gate::closed();
    let (handler_gate, block) = (gate.clone(), Overflow::Block(AN_HOUR));
    let options = SubscribeOptions::new("shop.**").concurrency(1).queue_capacity(1).overflow(block);
    broker.subscribe_with(options, move |_| handler_gate.pass()).expect("a subscription");
    let settlements = Settlements::of(&broker);
    let (registry, published) = publishing_to(&broker);

    let order = HookContext::new("shop", "orders");
    registry.run_after(Operation::Create, &order);
    gate.wait_for_arrival();
    let started = Instant::now();
    (0..10).for_each(|_| registry.run_after(Operation::Create, &order));
    assert!(started.elapsed() < PATIENCE);
    assert_eq!(counts(&published), (2, 9));
    assert_eq!(broker.stats().rejected, 9);
    assert_eq!(registry.after_failures(), 0, "losing an event is no failure of the hook");

    gate.open();
    settlements.take(2);
    registry.run_after(Operation::Create, &order);
    assert_eq!(counts(&published), (3, 9));
}

#[test]
fn a_broker_that_does_not_run_loses_the_event() {
    let broker = Broker::builder().build().expect("a broker");
    let (registry, published) = publishing_to(&broker);
    let order = HookContext::new("shop", "orders");
    registry.run_after(Operation::Create, &order);
    broker.start().expect("it starts");
    registry.run_after(Operation::Create, &order);
    broker.stop(PATIENCE);
    registry.run_after(Operation::Create, &order);
    assert_eq!(counts(&published), (1, 2));
}

struct TellsItsEnd(Sender<()>);

impl Drop for TellsItsEnd {
    fn drop(&mut self) {
        // The test may have ended already.
        let _ = self.0.send(());
    }
}

#[test]
fn hooks_do_not_keep_the_broker_alive() {
    let broker = Broker::builder().start().expect("a running broker");
    let (sender, dropped) = channel();
    let captured = TellsItsEnd(sender);
    let handler = move |_: &Delivery<'_>| {
        let _ = &captured;
    };
    broker.subscribe("*", handler).expect("a subscription");
    let (registry, published) = publishing_to(&broker);
    drop(broker);
    receive(&dropped, "the end of the handler, which goes with the broker");
    registry.run_after(Operation::Create, &HookContext::new("shop", "orders"));
    assert_eq!(counts(&published), (0, 1));
}

#[test]
fn names_that_make_no_event_type_are_refused_and_named() {
    let broker = Broker::builder().start().expect("a running broker");
    let (registry, published) = publishing_to(&broker);
    let log = Log::default();
    tracing::subscriber::with_default(log.clone(), || {
        for (schema, entity) in [("shop", ""), ("", ""), ("my shop", "orders"), ("shop", "*"), (".", "orders")] {
            registry.run_after(Operation::Delete, &HookContext::new(schema, entity).with_row_id(5));
        }
    });
    assert_eq!(counts(&published), (0, 5));
    let log = log.lines.lock();
    assert_eq!(log.len(), 5, "{log:?}");
    assert!(
        log.iter().all(|line| line.contains("an operation's event was lost") && line.contains("row_id=5")),
        "{log:?}"
    );
    assert!(log[0].contains("invalid event: entity: is empty"), "{log:?}");
    assert!(log[2].contains("invalid event: type: holds ' ' at byte 2"), "{log:?}");
}

#[test]
fn a_failing_hook_is_logged_with_its_name() {
    let (registry, log) = (HookRegistry::new(), Log::default());
    registry.after(Operation::Update, "newsletter", |_| Err("no paper".into()));
    tracing::subscriber::with_default(log.clone(), || {
        registry.run_after(Operation::Update, &HookContext::new("shop", "orders"));
    });
    let lines = log.lines.lock();
    assert!(lines[0].contains("hook=newsletter") && lines[0].contains("reason=no paper"), "{lines:?}");
}

/// Collects what is logged: a line of `field=value` for each event.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<Vec<String>>>,
}

impl tracing::Subscriber for Log {
    fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        struct Line(String);
        impl Visit for Line {
            fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
                write!(self.0, "{field}={value:?} ").expect("a text takes everything");
            }
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        self.lines.lock().push(line.0);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
