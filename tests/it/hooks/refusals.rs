//! Refused events of hooks are counted, and never fail or block the operation. The log records are in
//! `tests/tracing.rs`.

use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use eventbroker::hooks::{CrudHooks, CrudHooksConfig, HookContext, HookRegistry, Operation, register_crud_hooks};
use eventbroker::{Broker, Delivery, Overflow, SubscribeOptions};

use crate::support::{Gate, PATIENCE, Settlements, receive};

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
fn at_a_full_queue_the_event_is_lost_even_where_a_publisher_would_wait() {
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
    assert_eq!(registry.after_failures(), 0, "a lost event is not a failure of the hook");

    gate.open();
    settlements.take(2);
    registry.run_after(Operation::Create, &order);
    assert_eq!(counts(&published), (3, 9));
}

#[test]
fn at_a_broker_that_does_not_run_the_event_is_lost() {
    let broker = Broker::builder().build().expect("a broker");
    let (registry, published) = publishing_to(&broker);
    let order = HookContext::new("shop", "orders");
    registry.run_after(Operation::Create, &order);
    broker.start().expect("a running broker");
    registry.run_after(Operation::Create, &order);
    broker.stop(PATIENCE);
    registry.run_after(Operation::Create, &order);
    assert_eq!(counts(&published), (1, 2));
}

struct SendsWhenDropped(Sender<()>);

impl Drop for SendsWhenDropped {
    fn drop(&mut self) {
        // The receiver is gone when the test has ended.
        let _ = self.0.send(());
    }
}

#[test]
fn hooks_do_not_keep_the_broker_alive() {
    let broker = Broker::builder().start().expect("a running broker");
    let (sender, dropped) = channel();
    let captured = SendsWhenDropped(sender);
    let handler = move |_: &Delivery<'_>| {
        let _ = &captured;
    };
    broker.subscribe("*", handler).expect("a subscription");
    let (registry, published) = publishing_to(&broker);
    drop(broker);
    receive(&dropped, "the drop of the handler, with the broker");
    registry.run_after(Operation::Create, &HookContext::new("shop", "orders"));
    assert_eq!(counts(&published), (0, 1));
}
