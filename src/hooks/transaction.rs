//! The changes of one database transaction, held back until it is committed. It knows no database: whoever runs the
//! transaction tells it what happened.

use super::{HookContext, HookRegistry, Operation};

/// Gathers what one transaction does; made by [`HookRegistry::transaction`].
///
/// After-hooks must not speak of what may still be undone. So each operation is [`record`](Self::record)ed, and the
/// after-hooks are called by [`commit`](Self::commit), in the order of the records, once the database has committed.
/// [`rollback`](Self::rollback), and dropping it without a word, forgets them. Savepoints follow SQL: they nest, names may
/// repeat, and a name stands for the youngest savepoint of that name. Names are compared as they are written.
///
/// It holds every record until then, so a transaction of millions of rows takes the memory of millions of contexts.
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
#[must_use = "dropping it forgets the changes"]
pub struct Transaction {
    registry: HookRegistry,
    records: Vec<(Operation, HookContext)>,
    savepoints: Vec<Savepoint>,
}

#[derive(Debug)]
struct Savepoint {
    name: String,
    /// How many records there were.
    records: usize,
}

/// No open savepoint of the transaction has this name.
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

    /// Adds an operation that has been done inside the transaction. Calls nobody.
    pub fn record(&mut self, operation: Operation, context: HookContext) {
        self.records.push((operation, context));
    }

    /// Opens a savepoint, as SQL's `SAVEPOINT name`.
    pub fn savepoint(&mut self, name: impl Into<String>) {
        self.savepoints.push(Savepoint { name: name.into(), records: self.records.len() });
    }

    /// Forgets what was recorded since the savepoint, which stays open; those opened since are gone. As SQL's
    /// `ROLLBACK TO name`.
    ///
    /// # Errors
    /// [`NoSavepoint`]; nothing has changed.
    pub fn rollback_to(&mut self, name: &str) -> Result<(), NoSavepoint> {
        let index = self.find(name)?;
        self.savepoints.truncate(index + 1);
        self.records.truncate(self.savepoints[index].records);
        Ok(())
    }

    /// Closes the savepoint and those opened since; their records stay. As SQL's `RELEASE name`.
    ///
    /// # Errors
    /// [`NoSavepoint`]; nothing has changed.
    pub fn release(&mut self, name: &str) -> Result<(), NoSavepoint> {
        let index = self.find(name)?;
        self.savepoints.truncate(index);
        Ok(())
    }

    fn find(&self, name: &str) -> Result<usize, NoSavepoint> {
        let youngest = self.savepoints.iter().rposition(|savepoint| savepoint.name == name);
        youngest.ok_or_else(|| NoSavepoint { name: name.to_owned() })
    }

    /// Calls the after-hooks for everything that was recorded, in that order, and returns how many operations it was. To be
    /// called when the database has committed. Blocks for as long as the hooks take.
    pub fn commit(self) -> usize {
        for (operation, context) in &self.records {
            self.registry.run_after(*operation, context);
        }
        self.records.len()
    }

    /// Forgets everything. The same as dropping it, said aloud.
    pub fn rollback(self) {}
}
