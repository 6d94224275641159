//! The operations of one database transaction, recorded until the commit. This file knows no database: the data-access
//! layer reports each operation, savepoint, commit and rollback.

use super::{HookContext, HookRegistry, Operation};

/// Records the operations of one database transaction for the after-hooks.
///
/// Made by [`HookRegistry::transaction`]. After-hooks must not report an operation that may still be undone. So each
/// operation is [`record`](Self::record)ed, and [`commit`](Self::commit) calls the after-hooks in the order of the
/// records, once the database has committed. [`rollback`](Self::rollback) discards the records, and so does dropping
/// the transaction. Savepoints follow SQL: they nest, names may repeat, and a name means the latest savepoint of that
/// name. Names are case-sensitive.
///
/// All records are in memory until then: a transaction of millions of rows takes the memory of millions of contexts.
///
/// ```
/// use eventbroker::hooks::{HookContext, HookRegistry, Operation};
///
/// let registry = HookRegistry::new();
/// let mut transaction = registry.transaction();
/// transaction.record(Operation::Create, HookContext::new("shop", "orders").with_row_id(1));
/// transaction.savepoint("items");
/// transaction.record(Operation::Create, HookContext::new("shop", "items").with_row_id(9));
/// transaction.rollback_to("items")?;
/// assert_eq!(transaction.commit(), 1);
/// # Ok::<(), eventbroker::hooks::NoSavepoint>(())
/// ```
#[derive(Debug)]
#[must_use = "dropping it discards the recorded operations"]
pub struct Transaction {
    registry: HookRegistry,
    records: Vec<(Operation, HookContext)>,
    savepoints: Vec<Savepoint>,
}

#[derive(Debug)]
struct Savepoint {
    name: String,
    /// The number of records when the savepoint was opened.
    records: usize,
}

/// The transaction has no open savepoint of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no savepoint is named {name:?}")]
pub struct NoSavepoint {
    /// The name.
    pub name: String,
}

impl Transaction {
    pub(super) fn new(registry: HookRegistry) -> Self {
        Self { registry, records: Vec::new(), savepoints: Vec::new() }
    }

    /// Records an operation that was carried out. Calls no hook.
    pub fn record(&mut self, operation: Operation, context: HookContext) {
        self.records.push((operation, context));
    }

    /// Opens a savepoint, like SQL's `SAVEPOINT name`.
    pub fn savepoint(&mut self, name: impl Into<String>) {
        self.savepoints.push(Savepoint { name: name.into(), records: self.records.len() });
    }

    /// Discards the records since the savepoint, like SQL's `ROLLBACK TO name`.
    ///
    /// The savepoint stays open; savepoints opened after it are closed.
    ///
    /// # Errors
    /// [`NoSavepoint`]; nothing has changed.
    pub fn rollback_to(&mut self, name: &str) -> Result<(), NoSavepoint> {
        let index = self.find(name)?;
        self.savepoints.truncate(index + 1);
        self.records.truncate(self.savepoints[index].records);
        Ok(())
    }

    /// Closes a savepoint and those opened after it, like SQL's `RELEASE name`.
    ///
    /// Their records stay.
    ///
    /// # Errors
    /// [`NoSavepoint`]; nothing has changed.
    pub fn release(&mut self, name: &str) -> Result<(), NoSavepoint> {
        let index = self.find(name)?;
        self.savepoints.truncate(index);
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize, NoSavepoint> {
        let latest = self.savepoints.iter().rposition(|savepoint| savepoint.name == name);
        latest.ok_or_else(|| NoSavepoint { name: name.to_owned() })
    }

    /// Calls the after-hooks of all recorded operations, in order.
    ///
    /// To be called once the database has committed. Returns their number. Blocks for as long as the hooks take.
    pub fn commit(self) -> usize {
        for (operation, context) in &self.records {
            self.registry.run_after(*operation, context);
        }
        self.records.len()
    }

    /// Discards all records, like dropping the transaction.
    pub fn rollback(self) {}
}
