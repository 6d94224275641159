//! The shop's database and its data-access layer: each change calls the hooks inside a real transaction. The workload
//! is in `writers.rs`.

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use eventbroker::hooks::{self, HookContext, HookRegistry, HookUser, Operation};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, named_params, params};
use serde::{Deserialize, Serialize};

/// The schema of the shop's events.
pub(super) const SCHEMA: &str = "shop";
/// The tables; also the entities of the events.
pub(super) const ENTITIES: [&str; 4] = ["customers", "orders", "items", "products"];
/// The number of products; their ids are 1 to `PRODUCTS`.
pub(super) const PRODUCTS: i64 = 200;
/// The largest total of an order, in cents.
pub(super) const LARGEST_ORDER: i64 = 90_000;
/// How long a writer waits for the lock of the database.
const BUSY: Duration = Duration::from_secs(30);

const TABLES: &str = "
    PRAGMA journal_mode = WAL;
    CREATE TABLE customers (id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL);
    CREATE TABLE products (id INTEGER PRIMARY KEY, name TEXT NOT NULL, price INTEGER NOT NULL,
        stock INTEGER NOT NULL, version INTEGER NOT NULL);
    CREATE TABLE orders (id INTEGER PRIMARY KEY, customer INTEGER NOT NULL REFERENCES customers, email TEXT NOT NULL,
        total INTEGER NOT NULL, state TEXT NOT NULL);
    CREATE TABLE items (id INTEGER PRIMARY KEY, \"order\" INTEGER NOT NULL REFERENCES orders,
        product INTEGER NOT NULL REFERENCES products, quantity INTEGER NOT NULL, price INTEGER NOT NULL);
    CREATE INDEX items_of_order ON items (\"order\");
    CREATE TABLE changes (entity TEXT, operation TEXT, count INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (entity, operation))
        WITHOUT ROWID;
";

/// A customer.
#[derive(Debug, Serialize)]
pub(super) struct Customer {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) email: String,
}

/// A product.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Product {
    pub(super) id: i64,
    pub(super) name: String,
    /// In cents.
    pub(super) price: i64,
    pub(super) stock: i64,
    /// Incremented by each change.
    pub(super) version: i64,
}

/// An order.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) id: i64,
    pub(super) customer: i64,
    pub(super) email: String,
    /// In cents.
    pub(super) total: i64,
    pub(super) state: String,
}

/// A line of an order.
#[derive(Debug, Serialize)]
struct Item {
    id: i64,
    order: i64,
    product: i64,
    quantity: i64,
    /// Price of one piece, in cents.
    price: i64,
}

/// Any error of the demo. A rejection by a hook is a [`hooks::HookError`].
pub(super) type Undone = Box<dyn Error + Send + Sync>;

/// Creates the tables and the products. From then on triggers count each change inside its transaction, so the counts
/// are those of the committed changes.
pub(super) fn found(path: &Path) -> rusqlite::Result<()> {
    let mut connection = connect(path)?;
    connection.execute_batch(TABLES)?;
    let sql = connection.transaction()?;
    for id in 1..=PRODUCTS {
        let price = 95 + id * 7919 % 9_900;
        sql.execute("INSERT INTO products VALUES (?1, ?2, ?3, 1000, 1)", params![id, format!("Tea No. {id}"), price])?;
    }
    for entity in ENTITIES {
        for (operation, trigger) in [("create", "INSERT"), ("update", "UPDATE"), ("delete", "DELETE")] {
            sql.execute("INSERT INTO changes (entity, operation) VALUES (?1, ?2)", [entity, operation])?;
            sql.execute_batch(&format!(
                "CREATE TRIGGER {entity}_{operation} AFTER {trigger} ON {entity} BEGIN
                    UPDATE changes SET count = count + 1 WHERE entity = '{entity}' AND operation = '{operation}';
                END"
            ))?;
        }
    }
    sql.commit()
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(BUSY)?;
    // With the write-ahead log, NORMAL loses nothing when the process is killed.
    connection.execute_batch("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;")?;
    Ok(connection)
}

/// The data-access layer: one connection, the hooks, and the user that acts on it.
pub(super) struct Shop {
    connection: Connection,
    hooks: HookRegistry,
    user: HookUser,
}

impl Shop {
    pub(super) fn open(path: &Path, hooks: &HookRegistry, user: HookUser) -> rusqlite::Result<Self> {
        Ok(Self { connection: connect(path)?, hooks: hooks.clone(), user })
    }

    /// Begins a write transaction. Blocks up to 30 s for the transactions of others.
    pub(super) fn begin(&mut self) -> rusqlite::Result<Work<'_>> {
        let sql = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        Ok(Work { sql, gathered: self.hooks.transaction(), hooks: &self.hooks, user: &self.user })
    }

    /// Reads a product as committed last.
    pub(super) fn product(&self, id: i64) -> rusqlite::Result<Option<Product>> {
        self.connection.query_row("SELECT * FROM products WHERE id = ?1", [id], product_of).optional()
    }

    /// Reads the number of committed changes by entity and operation, as counted by the triggers.
    pub(super) fn committed_changes(&self) -> rusqlite::Result<Vec<(String, String, u64)>> {
        let mut statement = self.connection.prepare("SELECT entity, operation, count FROM changes")?;
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get::<_, u32>(2)?.into())))?.collect()
    }
}

fn product_of(row: &Row<'_>) -> rusqlite::Result<Product> {
    Ok(Product { id: row.get(0)?, name: row.get(1)?, price: row.get(2)?, stock: row.get(3)?, version: row.get(4)? })
}

fn order_of(row: &Row<'_>) -> rusqlite::Result<Order> {
    Ok(Order { id: row.get(0)?, customer: row.get(1)?, email: row.get(2)?, total: row.get(3)?, state: row.get(4)? })
}

fn item_of(row: &Row<'_>) -> rusqlite::Result<Item> {
    Ok(Item { id: row.get(0)?, order: row.get(1)?, product: row.get(2)?, quantity: row.get(3)?, price: row.get(4)? })
}

/// A transaction. Dropping it without a commit rolls it back, in the database and in the hooks.
pub(super) struct Work<'a> {
    sql: Transaction<'a>,
    gathered: hooks::Transaction,
    hooks: &'a HookRegistry,
    user: &'a HookUser,
}

impl Work<'_> {
    pub(super) fn add_customer(&mut self, name: &str) -> Result<Customer, Undone> {
        #[derive(Serialize)]
        struct New<'a> {
            name: &'a str,
            email: String,
        }

        let new = New { name, email: format!("{}@example.org", name.to_lowercase().replace(' ', ".")) };
        self.change(Operation::Create, "customers", None, &new, |sql| {
            sql.execute("INSERT INTO customers (name, email) VALUES (?1, ?2)", params![new.name, new.email])?;
            let id = sql.last_insert_rowid();
            Ok((id, Customer { id, name: name.to_owned(), email: new.email.clone() }))
        })
    }

    /// Inserts an order with its total. The before-hook may reject it.
    pub(super) fn place_order(&mut self, customer: i64, email: &str, total: i64) -> Result<Order, Undone> {
        #[derive(Serialize)]
        struct New<'a> {
            customer: i64,
            email: &'a str,
            total: i64,
            state: &'a str,
        }

        let new = New { customer, email, total, state: "open" };
        self.change(Operation::Create, "orders", None, &new, |sql| {
            let insert = "INSERT INTO orders (customer, email, total, state)
                VALUES (:customer, :email, :total, :state) RETURNING *";
            let values = named_params! {
                ":customer": new.customer, ":email": new.email, ":total": new.total, ":state": new.state,
            };
            let order = sql.query_row(insert, values, order_of)?;
            Ok((order.id, order))
        })
    }

    /// Adds a line to an order, and reduces the stock.
    pub(super) fn add_item(&mut self, order: i64, product: &Product, quantity: i64) -> Result<(), Undone> {
        let item = Item { id: 0, order, product: product.id, quantity, price: product.price };
        self.change(Operation::Create, "items", None, &item, |sql| {
            let insert = "INSERT INTO items (\"order\", product, quantity, price) VALUES (?1, ?2, ?3, ?4) RETURNING *";
            let item = sql.query_row(insert, params![order, product.id, quantity, product.price], item_of)?;
            Ok((item.id, item))
        })?;
        self.change_stock(product.id, -quantity)
    }

    pub(super) fn change_stock(&mut self, product: i64, by: i64) -> Result<(), Undone> {
        self.change_product(product, "stock = stock + ?2", by)
    }

    pub(super) fn change_price(&mut self, product: i64, price: i64) -> Result<(), Undone> {
        self.change_product(product, "price = ?2", price)
    }

    fn change_product(&mut self, id: i64, what: &str, value: i64) -> Result<(), Undone> {
        let update = format!("UPDATE products SET {what}, version = version + 1 WHERE id = ?1 RETURNING *");
        self.update("products", id, |sql| sql.query_row(&update, [id, value], product_of))
    }

    pub(super) fn set_state(&mut self, order: i64, state: &str) -> Result<(), Undone> {
        let update = "UPDATE orders SET state = ?2 WHERE id = ?1 RETURNING *";
        self.update("orders", order, |sql| sql.query_row(update, params![order, state], order_of))
    }

    /// Cancels an order: deletes its lines, restores the stock, then deletes the order.
    pub(super) fn cancel_order(&mut self, order: i64) -> Result<(), Undone> {
        let lines: Vec<Item> = {
            let mut statement = self.sql.prepare("SELECT * FROM items WHERE \"order\" = ?1")?;
            statement.query_map([order], item_of)?.collect::<Result<_, _>>()?
        };
        for line in lines {
            self.delete("items", line.id)?;
            self.change_stock(line.product, line.quantity)?;
        }
        self.delete("orders", order)
    }

    /// Runs an update whose event carries the whole row after the change.
    fn update<T: Serialize>(
        &mut self,
        entity: &str,
        id: i64,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<(), Undone> {
        let mut context = self.context(entity, Some(id));
        self.hooks.run_before(Operation::Update, &mut context)?;
        context.set_data(&run(&self.sql)?);
        self.gathered.record(Operation::Update, context);
        Ok(())
    }

    fn delete(&mut self, entity: &str, id: i64) -> Result<(), Undone> {
        let statement = format!("DELETE FROM {entity} WHERE id = ?1");
        self.change(Operation::Delete, entity, Some(id), &(), |sql| sql.execute(&statement, [id]).map(|_| (id, ())))
    }

    /// Runs a create or a delete: calls the before-hooks, executes the statement, and records the change for the
    /// commit.
    fn change<T: Serialize>(
        &mut self,
        operation: Operation,
        entity: &str,
        id: Option<i64>,
        data: &(impl Serialize + ?Sized),
        run: impl FnOnce(&Connection) -> rusqlite::Result<(i64, T)>,
    ) -> Result<T, Undone> {
        let mut context = self.context(entity, id).with_data(data);
        self.hooks.run_before(operation, &mut context)?;
        let (id, row) = run(&self.sql)?;
        self.gathered.record(operation, context.with_row_id(id).with_result(&row));
        Ok(row)
    }

    fn context(&self, entity: &str, id: Option<i64>) -> HookContext {
        let context = HookContext::new(SCHEMA, entity).with_user(self.user.clone());
        match id {
            Some(id) => context.with_row_id(id),
            None => context,
        }
    }

    pub(super) fn savepoint(&mut self, name: &str) -> Result<(), Undone> {
        self.sql.execute_batch(&format!("SAVEPOINT {name}"))?;
        self.gathered.savepoint(name);
        Ok(())
    }

    pub(super) fn rollback_to(&mut self, name: &str) -> Result<(), Undone> {
        self.sql.execute_batch(&format!("ROLLBACK TO {name}"))?;
        Ok(self.gathered.rollback_to(name)?)
    }

    pub(super) fn release(&mut self, name: &str) -> Result<(), Undone> {
        self.sql.execute_batch(&format!("RELEASE {name}"))?;
        Ok(self.gathered.release(name)?)
    }

    /// Commits, then runs the after-hooks. Returns the number of changes.
    pub(super) fn commit(self) -> Result<u64, Undone> {
        self.sql.commit()?;
        Ok(self.gathered.commit() as u64)
    }

    pub(super) fn rollback(self) -> Result<(), Undone> {
        self.gathered.rollback();
        Ok(self.sql.rollback()?)
    }
}
