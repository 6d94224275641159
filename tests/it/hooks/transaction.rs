//! Hooks in transactions: after-hooks run for committed changes only.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use eventbroker::hooks::{HookContext, HookRegistry, NoSavepoint, Operation, Transaction};
use parking_lot::Mutex;
use proptest::prelude::*;

/// A registry whose after-hooks record the operations and row ids.
fn registry() -> (HookRegistry, Arc<Mutex<Vec<String>>>) {
    let (registry, heard) = (HookRegistry::new(), Arc::<Mutex<Vec<String>>>::default());
    for operation in Operation::ALL {
        let heard = Arc::clone(&heard);
        registry.after(operation, "hear", move |context| {
            heard.lock().push(format!("{operation} {}", context.row_id));
            Ok(())
        });
    }
    (registry, heard)
}

fn row(id: impl std::fmt::Display) -> HookContext {
    HookContext::new("shop", "orders").with_row_id(id)
}

#[test]
fn a_commit_calls_the_hooks_in_the_order_of_the_changes() {
    let (registry, heard) = registry();
    let mut transaction = registry.transaction();
    transaction.record(Operation::Create, row(1));
    transaction.record(Operation::Update, row(1));
    transaction.record(Operation::Create, row(2));
    transaction.record(Operation::Delete, row(1));
    assert!(heard.lock().is_empty(), "a hook was called before the commit");
    assert_eq!(transaction.commit(), 4);
    assert_eq!(*heard.lock(), ["create 1", "update 1", "create 2", "delete 1"]);
}

#[test]
fn rollback_and_drop_call_no_hook() {
    let (registry, heard) = registry();
    let mut rolled_back = registry.transaction();
    rolled_back.record(Operation::Create, row(1));
    rolled_back.rollback();
    let mut dropped = registry.transaction();
    dropped.record(Operation::Create, row(2));
    drop(dropped);
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let mut transaction = registry.transaction();
        transaction.record(Operation::Create, row(3));
        panic!("in the middle of it");
    }));
    assert!(unwound.is_err());
    assert!(heard.lock().is_empty());
}

#[test]
fn savepoints_nest_and_a_name_means_the_latest() {
    let (registry, heard) = registry();
    let mut transaction = registry.transaction();
    transaction.record(Operation::Create, row(1));
    transaction.savepoint("a");
    transaction.record(Operation::Create, row(2));
    transaction.savepoint("b");
    transaction.record(Operation::Create, row(3));
    transaction.savepoint("a");
    transaction.record(Operation::Create, row(4));
    transaction.rollback_to("a").expect("the younger a");
    transaction.release("a").expect("the savepoint stays open after a rollback");
    transaction.record(Operation::Create, row(5));
    transaction.release("b").expect("b is open");
    assert_eq!(transaction.rollback_to("b"), Err(NoSavepoint { name: "b".to_owned() }));
    transaction.commit();
    assert_eq!(*heard.lock(), ["create 1", "create 2", "create 3", "create 5"]);
}

#[test]
fn a_rollback_to_an_outer_savepoint_covers_released_inner_ones() {
    let (registry, heard) = registry();
    let mut transaction = registry.transaction();
    transaction.savepoint("outer");
    transaction.savepoint("inner");
    transaction.record(Operation::Create, row(1));
    transaction.release("inner").expect("open");
    transaction.rollback_to("outer").expect("open");
    assert_eq!(transaction.commit(), 0);
    assert!(heard.lock().is_empty());
}

#[test]
fn an_unknown_savepoint_is_an_error_and_changes_nothing() {
    let (registry, heard) = registry();
    let mut transaction = registry.transaction();
    transaction.savepoint("here");
    transaction.record(Operation::Create, row(1));
    for outcome in [transaction.rollback_to("Here"), transaction.release("")] {
        assert!(outcome.expect_err("no such savepoint").to_string().starts_with("no savepoint is named \""));
    }
    transaction.commit();
    assert_eq!(*heard.lock(), ["create 1"]);
}

#[test]
fn a_failing_hook_does_not_affect_later_changes() {
    let (registry, heard) = registry();
    registry.after(Operation::Create, "broken", |_| panic!("broken"));
    let mut transaction = registry.transaction();
    transaction.record(Operation::Create, row(1));
    transaction.record(Operation::Delete, row(2));
    assert_eq!(transaction.commit(), 2);
    assert_eq!(*heard.lock(), ["create 1", "delete 2"]);
    assert_eq!(registry.after_failures(), 1);
}

#[derive(Debug, Clone)]
enum Step {
    Change,
    Savepoint(u8),
    RollbackTo(u8),
    Release(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Change),
        2 => (0_u8..3).prop_map(Step::Savepoint),
        1 => (0_u8..3).prop_map(Step::RollbackTo),
        1 => (0_u8..3).prop_map(Step::Release),
    ]
}

/// The rule of SQL in its plainest form: each savepoint keeps a copy of all changes before it, latest first.
#[derive(Default)]
struct Model {
    rows: Vec<String>,
    savepoints: VecDeque<(String, Vec<String>)>,
}

impl Model {
    fn take(&mut self, step: &Step, number: usize, transaction: &mut Transaction) {
        match step {
            Step::Change => {
                self.rows.push(format!("update {number}"));
                transaction.record(Operation::Update, row(number));
            }
            Step::Savepoint(name) => {
                self.savepoints.push_front((name.to_string(), self.rows.clone()));
                transaction.savepoint(name.to_string());
            }
            Step::RollbackTo(name) => {
                let found = self.savepoints.iter().position(|it| it.0 == name.to_string());
                if let Some(index) = found {
                    self.savepoints.drain(..index);
                    self.rows = self.savepoints[0].1.clone();
                }
                assert_eq!(transaction.rollback_to(&name.to_string()).is_ok(), found.is_some());
            }
            Step::Release(name) => {
                let found = self.savepoints.iter().position(|it| it.0 == name.to_string());
                if let Some(index) = found {
                    self.savepoints.drain(..=index);
                }
                assert_eq!(transaction.release(&name.to_string()).is_ok(), found.is_some());
            }
        }
    }
}

proptest! {
    #[test]
    fn committed_changes_are_those_of_sql(steps in prop::collection::vec(step(), 0..40)) {
        let (registry, heard) = registry();
        let (mut transaction, mut model) = (registry.transaction(), Model::default());
        for (number, step) in steps.iter().enumerate() {
            model.take(step, number, &mut transaction);
        }
        transaction.commit();
        prop_assert_eq!(&*heard.lock(), &model.rows);
    }
}
