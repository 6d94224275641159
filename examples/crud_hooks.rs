//! A data-access layer with hooks: changes of a committed transaction are published as events, those of a rollback are
//! not.

use std::time::Duration;

use eventbroker::Broker;
use eventbroker::hooks::{CrudHooksConfig, HookContext, HookRegistry, Operation, register_crud_hooks};

/// A stand-in for the layer that writes to the database.
struct Layer {
    hooks: HookRegistry,
}

impl Layer {
    /// Creates orders in one transaction.
    fn create_orders(&self, totals: &[f64]) -> Result<(), Box<dyn std::error::Error>> {
        let mut transaction = self.hooks.transaction();
        for (row, total) in totals.iter().enumerate() {
            let mut context = HookContext::new("shop", "orders").with_row_id(row).with_data(total);
            // On an error the function returns, and the dropped transaction discards its recorded changes.
            self.hooks.run_before(Operation::Create, &mut context)?;
            // … the row is inserted …
            context.set_result(&serde_json::json!({ "id": row, "total": total }));
            transaction.record(Operation::Create, context);
        }
        // … the database commits …
        transaction.commit();
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let broker = Broker::builder().start()?;
    broker.subscribe("shop.orders.*", |delivery| {
        println!("{}: {}", delivery.event().event_type(), delivery.event().payload().as_str());
    })?;
    let hooks = HookRegistry::new();
    let published = register_crud_hooks(&broker, &hooks, CrudHooksConfig::default());
    hooks.before(Operation::Create, "total", |context| {
        let total: f64 = context.data().parse()?;
        if total < 0.0 { Err("a total below zero".into()) } else { Ok(()) }
    });

    let layer = Layer { hooks };
    layer.create_orders(&[12.5, 3.0])?;
    let stopped = layer.create_orders(&[7.0, -1.0]).expect_err("a hook rejects it");
    println!("{stopped}");
    broker.stop(Duration::from_secs(5));
    assert_eq!(published.accepted(), 2);
    Ok(())
}
