//! The hook registry: the hooks that are called, their order, and the effect of their errors.

use std::panic::panic_any;
use std::sync::Arc;

use eventbroker::hooks::{HookContext, HookRegistry, Operation};
use parking_lot::Mutex;

/// The notes of hooks, in the order of their calls.
#[derive(Clone, Default)]
struct Calls(Arc<Mutex<Vec<String>>>);

impl Calls {
    fn say(&self, what: impl Into<String>) {
        self.0.lock().push(what.into());
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

fn context() -> HookContext {
    HookContext::new("shop", "orders").with_row_id(1)
}

#[test]
fn hooks_are_called_for_their_operation_in_the_order_of_registration() {
    let (registry, calls) = (HookRegistry::new(), Calls::default());
    for operation in Operation::ALL {
        for place in ["first", "second", "third"] {
            let before = calls.clone();
            registry.before(operation, place, move |_| {
                before.say(format!("before {operation} {place}"));
                Ok(())
            });
            let after = calls.clone();
            registry.clone().after(operation, place, move |_| {
                after.say(format!("after {operation} {place}"));
                Ok(())
            });
        }
    }
    for operation in Operation::ALL {
        registry.run_before(operation, &mut context()).expect("no hook fails");
        let said = |when: &str| ["first", "second", "third"].map(|place| format!("{when} {operation} {place}"));
        assert_eq!(calls.take(), said("before"));
        registry.run_after(operation, &context());
        assert_eq!(calls.take(), said("after"));
    }
}

#[test]
fn an_error_of_a_before_hook_stops_the_operation_and_names_the_hook() {
    let (registry, calls) = (HookRegistry::new(), Calls::default());
    registry.before(Operation::Update, "fine", |_| Ok(()));
    registry.before(Operation::Update, "budget", |_| Err("the money is gone".into()));
    let later = calls.clone();
    registry.before(Operation::Update, "later", move |_| {
        later.say("later");
        Ok(())
    });
    let stopped = registry.run_before(Operation::Update, &mut context()).expect_err("a hook fails");
    assert_eq!(stopped.to_string(), "update stopped by hook budget: the money is gone");
    assert_eq!((stopped.operation, &*stopped.hook), (Operation::Update, "budget"));
    assert!(calls.take().is_empty(), "hooks behind the failed one were called");
}

#[test]
fn the_error_of_a_hook_keeps_its_type() {
    let registry = HookRegistry::new();
    registry.before(Operation::Create, "number", |context| {
        context.row_id.parse::<u8>()?;
        Ok(())
    });
    let stopped = registry.run_before(Operation::Create, &mut context().with_row_id("many")).expect_err("not a number");
    assert!(stopped.reason.is::<std::num::ParseIntError>());
}

#[test]
fn a_before_hook_may_change_the_operation() {
    let registry = HookRegistry::new();
    registry.before(Operation::Create, "round", |context| {
        let total: f64 = context.data().parse()?;
        context.set_data(&total.round());
        context.table = "orders_2".to_owned();
        Ok(())
    });
    let mut context = context().with_data(&12.4);
    registry.run_before(Operation::Create, &mut context).expect("the hook is content");
    assert_eq!((context.data().as_str(), context.table.as_str()), ("12.0", "orders_2"));
}

#[test]
fn errors_of_after_hooks_are_counted_and_stop_nothing() {
    let (registry, calls) = (HookRegistry::new(), Calls::default());
    registry.after(Operation::Delete, "failing", |_| Err("no".into()));
    registry.after(Operation::Delete, "panicking", |_| panic!("oh no"));
    let last = calls.clone();
    registry.after(Operation::Delete, "last", move |_| {
        last.say("last");
        Ok(())
    });
    registry.run_after(Operation::Delete, &context());
    registry.run_after(Operation::Delete, &context());
    assert_eq!(calls.take(), ["last", "last"]);
    assert_eq!(registry.after_failures(), 4);
}

#[test]
fn a_panic_of_a_before_hook_is_an_error_with_its_message() {
    let registry = HookRegistry::new();
    registry.before(Operation::Create, "literal", |_| panic!("oh no"));
    registry.before(Operation::Read, "formatted", |context| panic!("row {}", context.row_id));
    registry.before(Operation::Update, "strange", |_| panic_any(7));
    let expected = [
        (Operation::Create, "create stopped by hook literal: the hook panicked: oh no"),
        (Operation::Read, "read stopped by hook formatted: the hook panicked: row 1"),
        (Operation::Update, "update stopped by hook strange: the hook panicked: (no message)"),
    ];
    for (operation, message) in expected {
        let stopped = registry.run_before(operation, &mut context()).expect_err("the hook panics");
        assert_eq!(stopped.to_string(), message);
    }
}

#[test]
fn a_hook_may_register_hooks_and_call_others() {
    let (registry, calls) = (HookRegistry::new(), Calls::default());
    let (inner, said) = (registry.clone(), calls.clone());
    registry.after(Operation::Create, "outer", move |context| {
        said.say("outer");
        let said = said.clone();
        inner.after(Operation::Delete, "inner", move |_| {
            said.say("inner");
            Ok(())
        });
        inner.run_after(Operation::Delete, context);
        Ok(())
    });
    registry.run_after(Operation::Create, &context());
    assert_eq!(calls.take(), ["outer", "inner"]);
}
