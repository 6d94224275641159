//! Hooks around the operations of a data-access layer, and events from them.
//!
//! The layer calls before-hooks, which may stop or change an operation, and records each operation in a
//! [`Transaction`], whose commit calls the after-hooks. [`register_crud_hooks`] adds after-hooks that publish events.
//!
//! ```
//! use eventbroker::hooks::{HookContext, HookRegistry, Operation};
//!
//! let registry = HookRegistry::new();
//! registry.before(Operation::Create, "total", |context| {
//!     let total: f64 = context.data().parse()?;
//!     if total < 0.0 { Err("a total below zero".into()) } else { Ok(()) }
//! });
//!
//! let mut context = HookContext::new("shop", "orders").with_data(&-1.0);
//! let stopped = registry.run_before(Operation::Create, &mut context).unwrap_err();
//! assert_eq!(stopped.to_string(), "create stopped by hook total: a total below zero");
//! ```

mod context;
mod publish;
mod transaction;

use std::any::Any;
use std::error::Error;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;

pub use context::{HookContext, HookUser, Operation};
pub use publish::{CrudHooks, CrudHooksConfig, register_crud_hooks};
pub use transaction::{NoSavepoint, Transaction};

/// The result of a hook: any error by `?`, or a text by `.into()`, is a failure.
pub type HookResult = Result<(), Box<dyn Error + Send + Sync>>;

type Before = dyn Fn(&mut HookContext) -> HookResult + Send + Sync;
type After = dyn Fn(&HookContext) -> HookResult + Send + Sync;

/// The hooks of a program, before and after each [`Operation`].
///
/// A clone is another handle to the same hooks, and can be used from any thread. The lookup of hooks does not block; a
/// hook runs on the thread of the operation, without a time limit.
#[derive(Clone, Default)]
pub struct HookRegistry {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    hooks: ArcSwap<Hooks>,
    after_failures: AtomicU64,
}

/// Hooks by operation, in the order of registration.
#[derive(Clone, Default)]
struct Hooks {
    before: [Vec<Hook<Before>>; Operation::ALL.len()],
    after: [Vec<Hook<After>>; Operation::ALL.len()],
}

struct Hook<F: ?Sized> {
    name: Arc<str>,
    call: Arc<F>,
}

impl<F: ?Sized> Clone for Hook<F> {
    fn clone(&self) -> Self {
        Self { name: Arc::clone(&self.name), call: Arc::clone(&self.call) }
    }
}

/// A before-hook has stopped an operation, which must not be carried out.
#[derive(Debug, thiserror::Error)]
#[error("{operation} stopped by hook {hook}: {reason}")]
#[non_exhaustive]
pub struct HookError {
    /// The operation.
    pub operation: Operation,
    /// The name of the hook, as it was registered.
    pub hook: Arc<str>,
    /// The error that it returned, or the message of its panic.
    pub reason: Box<dyn Error + Send + Sync>,
}

impl HookRegistry {
    /// Creates a registry without hooks.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a hook that is called before the operation, after those added earlier.
    ///
    /// The hook may change the context. An error, reported under `name`, stops the operation and skips later hooks.
    pub fn before(
        &self,
        operation: Operation,
        name: impl AsRef<str>,
        hook: impl Fn(&mut HookContext) -> HookResult + Send + Sync + 'static,
    ) {
        let hook = Hook::<Before> { name: name.as_ref().into(), call: Arc::new(hook) };
        self.change(|hooks| hooks.before[operation as usize].push(hook.clone()));
    }

    /// Adds a hook that is called after the operation, after those added earlier.
    ///
    /// The hook cannot stop the operation: an error is counted and logged with `name`, and the next hook is called.
    pub fn after(
        &self,
        operation: Operation,
        name: impl AsRef<str>,
        hook: impl Fn(&HookContext) -> HookResult + Send + Sync + 'static,
    ) {
        let hook = Hook::<After> { name: name.as_ref().into(), call: Arc::new(hook) };
        self.change(|hooks| hooks.after[operation as usize].push(hook.clone()));
    }

    fn change(&self, add: impl Fn(&mut Hooks)) {
        self.shared.hooks.rcu(|hooks| {
            let mut hooks = Hooks::clone(hooks);
            add(&mut hooks);
            hooks
        });
    }

    /// Calls the before-hooks of an operation that is about to be carried out.
    ///
    /// Blocks for as long as the hooks take.
    ///
    /// # Errors
    /// [`HookError`] of the first hook that failed or panicked: the operation must not be carried out. Changes that
    /// hooks made to the context stay.
    pub fn run_before(&self, operation: Operation, context: &mut HookContext) -> Result<(), HookError> {
        let hooks = self.shared.hooks.load_full();
        for Hook { name, call } in &hooks.before[operation as usize] {
            guarded(|| call(context)).map_err(|reason| HookError { operation, hook: Arc::clone(name), reason })?;
        }
        Ok(())
    }

    /// Calls the after-hooks of an operation that can no longer be undone.
    ///
    /// Inside a database transaction use [`transaction`](Self::transaction) instead. Blocks for as long as the hooks
    /// take, and never fails.
    pub fn run_after(&self, operation: Operation, context: &HookContext) {
        let hooks = self.shared.hooks.load_full();
        for Hook { name, call } in &hooks.after[operation as usize] {
            if let Err(reason) = guarded(|| call(context)) {
                self.shared.after_failures.fetch_add(1, Ordering::SeqCst);
                let HookContext { schema, entity, row_id, .. } = context;
                tracing::warn!(hook = %name, %operation, %schema, %entity, %row_id, %reason, "an after-hook failed");
            }
        }
    }

    /// Begins to record a database transaction.
    ///
    /// The after-hooks of its operations are called when the transaction is committed.
    pub fn transaction(&self) -> Transaction {
        Transaction::new(self.clone())
    }

    /// The number of calls of after-hooks that failed or panicked.
    #[must_use]
    pub fn after_failures(&self) -> u64 {
        self.shared.after_failures.load(Ordering::SeqCst)
    }
}

impl fmt::Debug for HookRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn names<F: ?Sized>(lists: &[Vec<Hook<F>>]) -> Vec<(Operation, Vec<&str>)> {
            Operation::ALL.into_iter().zip(lists.iter().map(|it| it.iter().map(|hook| &*hook.name).collect())).collect()
        }

        let hooks = self.shared.hooks.load_full();
        f.debug_struct("HookRegistry")
            .field("before", &names(&hooks.before))
            .field("after", &names(&hooks.after))
            .field("after_failures", &self.after_failures())
            .finish()
    }
}

/// Calls a hook. A panic becomes an error.
fn guarded(call: impl FnOnce() -> HookResult) -> HookResult {
    // Unwind safe: a before-hook that panics stops the operation, and an after-hook cannot change the context.
    catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| Err(panic_text(&*panic).into()))
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the hook panicked: {}", text.unwrap_or("(no message)"))
}
